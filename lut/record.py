"""One measurement: a network's kernels inside its frames, with raw samples."""

from dataclasses import asdict, dataclass, fields
from functools import cached_property
from statistics import median
from typing import Any, Literal

from lut.errors import UserError
from lut.json_text import checked, is_number
from lut.ops import Operation, parse_operation

Role = Literal["entries", "calibration"]
Rounds = tuple[tuple[float, ...], ...]  # microseconds: rounds of frames


@dataclass(frozen=True)
class EntrySamples:
    """What one entry took in a network: microseconds of one call, by round and frame, the mean over
    the `calls` of it in that frame."""

    calls: int
    samples_us: Rounds


@dataclass(frozen=True)
class Visit:
    """One network, measured in rounds on one occasion.

    Each round times the reference network, this one whole, and this one kernel by kernel, in
    microseconds a frame. What role ``entries`` measures goes into the table's entries; what role
    ``calibration`` measures only says what a whole network takes beyond their sum.
    """

    network: str
    role: Role
    date: str
    reference_us: Rounds
    whole_us: Rounds
    entries: dict[Operation, EntrySamples]

    @cached_property
    def drift_us(self) -> tuple[float, ...]:
        """The reference network's median in each round: how fast the device was."""
        return tuple(median(frames) for frames in self.reference_us)

    def entry_us(self, key: Operation, baseline_us: float) -> list[float]:
        """An entry's median in each round, at the speed at which the reference takes the
        baseline."""
        return self._level(self.entries[key].samples_us, baseline_us)

    def samples_us(self, key: Operation, baseline_us: float) -> list[float]:
        """An entry's time in each frame, at that speed."""
        return [
            sample * baseline_us / drift
            for frames, drift in zip(self.entries[key].samples_us, self.drift_us, strict=True)
            for sample in frames
        ]

    def frame_us(self, baseline_us: float) -> list[float]:
        """The whole network's median in each round, at that speed."""
        return self._level(self.whole_us, baseline_us)

    def _level(self, rounds: Rounds, baseline_us: float) -> list[float]:
        return [
            median(frames) * baseline_us / drift
            for frames, drift in zip(rounds, self.drift_us, strict=True)
        ]

    def to_json(self) -> dict[str, Any]:
        """JSON fields."""
        entries = {str(key): asdict(samples) for key, samples in self.entries.items()}
        return {f.name: getattr(self, f.name) for f in fields(self)} | {"entries": entries}

    @staticmethod
    def from_json(values: dict[str, Any]) -> "Visit":
        """Read `to_json`'s fields; raises UserError naming what is wrong."""
        known = checked(Visit, values)
        if known["role"] not in ("entries", "calibration"):
            raise UserError(f"the role is {known['role']!r}, not entries or calibration")
        rounds = _rounds("reference_us", known["reference_us"])
        whole = _rounds("whole_us", known["whole_us"], len(rounds))
        if not isinstance(known["entries"], dict) or not known["entries"]:
            raise UserError("'entries' is not an object with at least one entry")
        entries = {}
        for text, entry in known["entries"].items():
            inner = checked(EntrySamples, entry)
            if inner["calls"] < 1:
                raise UserError(f"'{text}' has {inner['calls']} calls")
            samples = _rounds(f"{text}: samples_us", inner["samples_us"], len(rounds))
            entries[parse_operation(text)] = EntrySamples(inner["calls"], samples)
        return Visit(known["network"], known["role"], known["date"], rounds, whole, entries)


def _rounds(name: str, value: Any, count: int | None = None) -> Rounds:  # noqa: ANN401 - any JSON
    """Rounds of samples; raises UserError unless all are numbers above zero."""
    if not isinstance(value, list) or not value or (count and len(value) != count):
        raise UserError(f"{name} does not have a list of samples for every round")
    for frames in value:
        if not isinstance(frames, list) or not frames:
            raise UserError(f"{name} has a round without samples")
        for sample in frames:
            if not is_number(sample) or sample <= 0:
                raise UserError(
                    f"{name} has the sample {sample!r:.40}; microseconds are above zero"
                )
    return tuple(tuple(float(sample) for sample in frames) for frames in value)
