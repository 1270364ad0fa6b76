"""The measured table of one device, resolution and width: query and merge.

A miss raises: nothing is measured or guessed behind the caller's back.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from statistics import fmean, median, stdev

from lut.errors import UserError
from lut.ops import Operation
from lut.provenance import Provenance
from lut.record import Visit
from lut.retiming import Retiming
from lut.student import t95

NOISY = 0.05  # half the 95% interval over the median, above which an entry is called noisy


@dataclass(frozen=True)
class Identity:
    """What a table is for. `target` is the target's key, `resolution` HEIGHTxWIDTH; `width` is the
    networks'; a GPU has 0 threads."""

    target: str
    target_name: str  # as on the command line
    threads: int
    resolution: str
    width: float
    num_classes: int
    resize_rule: str

    @property
    def target_text(self) -> str:
        """What names the target on a command line: one that was given as JSON has no name."""
        return self.target if self.target_name == "json" else self.target_name

    @property
    def precision(self) -> str | None:
        """Of the maps, where the target's key names one."""
        found = re.search(r'"precision":"(\w+)"', self.target)
        return found[1] if found else None

    @property
    def size(self) -> tuple[int, int]:
        """`resolution` as (height, width); raises UserError where it is something else."""
        found = re.fullmatch(r"([0-9]{1,9})x([0-9]{1,9})", self.resolution, re.ASCII)
        if not found:
            raise UserError(f"the table's resolution {self.resolution!r} is not HEIGHTxWIDTH")
        return int(found[1]), int(found[2])

    def differences(self, other: "Identity") -> list[str]:
        """The fields in which two tables are for different things, in words."""
        return [
            f"{f.name} {getattr(self, f.name)!r} and {getattr(other, f.name)!r}"
            for f in fields(self)
            if f.name != "target_name" and getattr(self, f.name) != getattr(other, f.name)
        ]


@dataclass(frozen=True)
class Measure:
    """What would help: to measure what the table at `path` lacks, or a new table where there is no
    `identity`."""

    identity: Identity | None
    path: str


@dataclass(frozen=True)
class Merge:
    """What would help: to join these tables although their provenance differs."""

    tables: tuple[str, ...]


@dataclass(frozen=True)
class Retime:
    """What would help: to time the calibration networks of the table at `path` again."""

    path: str


@dataclass(frozen=True)
class Entry:
    """One entry as the table gives it, in microseconds at the reference's baseline speed.

    `p10_us` and `p90_us` are percentiles of single frames; `half_interval_us` is half the two-sided
    95% interval of the mean over rounds, by Student's t: how well the same visits would repeat it.
    """

    median_us: float
    p10_us: float
    p90_us: float
    half_interval_us: float
    rounds: int

    @property
    def noisy(self) -> bool:
        """Whether the interval is wide."""
        return self.half_interval_us > NOISY * self.median_us


@dataclass(frozen=True)
class Table:
    """A table in memory."""

    identity: Identity
    runs: tuple[tuple[Provenance, tuple[Visit, ...]], ...]
    name: str  # of the file, for messages
    retimings: tuple[Retiming, ...] = ()  # in the order of the file: the last one counts

    @property
    def visits(self) -> list[Visit]:
        """All measurements, in the order of the file."""
        return [visit for _, visits in self.runs for visit in visits]

    @property
    def measure(self) -> Measure:
        """What would help where something is missing."""
        return Measure(self.identity, self.name)

    @cached_property
    def baseline_us(self) -> float:
        """The reference network's time to which every sample of an entry is scaled: its median.
        Raises UserError for an empty table."""
        drifts = [drift for visit in self.visits for drift in visit.drift_us]
        if not drifts:
            raise UserError(f"{self.name} is empty; measure it", mend=self.measure)
        return median(drifts)

    @property
    def present_us(self) -> float:
        """The reference network's time at the speed that estimates are for: the last retiming's,
        else the baseline."""
        return self.retimings[-1].baseline_us if self.retimings else self.baseline_us

    @cached_property
    def entries(self) -> dict[Operation, Entry]:
        """Every entry that has been measured."""
        found: dict[Operation, list[Visit]] = {}
        for visit in self.visits:
            if visit.role == "entries":
                for key in visit.entries:
                    found.setdefault(key, []).append(visit)
        return {key: summarise(key, visits, self.baseline_us) for key, visits in found.items()}

    @cached_property
    def occasions_spread(self) -> list[float]:
        """Of each network visited more than once, sorted: the standard deviation of its whole
        frame's time over its visits, relative to their mean."""
        times: dict[str, list[float]] = {}
        for visit in self.visits:
            level = median(visit.frame_us(self.baseline_us))
            times.setdefault(visit.network, []).append(level)
        return sorted(stdev(us) / fmean(us) for us in times.values() if len(us) > 1)

    @property
    def emulated(self) -> bool:
        """Whether any of it was measured under emulation, where latencies mean nothing."""
        return any(provenance.emulated for provenance, _ in self.runs)

    @property
    def cpus(self) -> str:
        """What it was measured on, for a title."""
        names = ", ".join(dict.fromkeys(provenance.cpu for provenance, _ in self.runs))
        return names + (" EMULATED" if self.emulated else "")

    @property
    def built_calibration(self) -> list[Visit]:
        """Whole networks that did not contribute to the entries, as they were measured with
        them."""
        return [visit for visit in self.visits if visit.role == "calibration"]

    @property
    def calibration(self) -> list[Visit]:
        """The same as they were measured last."""
        return list(self.retimings[-1].visits) if self.retimings else self.built_calibration

    @property
    def newest(self) -> Provenance | None:
        """Where its last measurements come from: what vouches for the table; None for an empty
        one."""
        if self.retimings:
            return self.retimings[-1].provenance
        return self.runs[-1][0] if self.runs else None

    def age(self, date: str, host: str) -> str | None:
        """In words, why it may no longer hold on that day (ISO 8601, UTC) on that host; None where
        it was measured on both. An empty `host` is not known, and no reason."""
        visits = self.retimings[-1].visits if self.retimings else self.visits
        if not visits:
            return None
        if (day := visits[-1].date[:10]) != date[:10]:
            return f"was measured on {day}"
        before = self.retimings[-1].host if self.retimings else ""
        if host and before and before != host:
            return "was measured on another machine of this kind, or before this one's last start"
        return None

    def entry(self, key: Operation) -> Entry:
        """An entry; raises UserError where it is missing."""
        found = self.entries.get(key)
        if found is None:
            raise UserError(f"{self.name} has no entry '{key}'; measure it", mend=self.measure)
        return found

    def require(self, resolution: str, width: float, num_classes: int, resize_rule: str) -> None:
        """Raise UserError unless the table is for such networks."""
        wanted = replace(
            self.identity, resolution=resolution, width=width, num_classes=num_classes,
            resize_rule=resize_rule,
        )  # fmt: skip
        if wrong := self.identity.differences(wanted):
            raise UserError(
                f"{self.name} is for other networks than these: {'; '.join(wrong)}; name the "
                "table of these, or measure it", mend=Measure(wanted, "TABLE.jsonl"),
            )  # fmt: skip


def summarise(key: Operation, visits: list[Visit], baseline_us: float) -> Entry:
    """What visits say of an entry that each has, at the speed of this baseline."""
    levels = [visit.entry_us(key, baseline_us) for visit in visits]
    rounds = [level for visit in levels for level in visit]
    half = float("inf")
    if len(rounds) > 1:
        half = t95(len(rounds) - 1) * stdev(rounds) / len(rounds) ** 0.5
    frames = sorted(us for visit in visits for us in visit.samples_us(key, baseline_us))
    tenth = len(frames) // 10
    # The median within a visit, where a disturbance is an outlier; the mean over visits, where
    # each is another neighbourhood of equal right.
    value = fmean(map(median, levels))
    return Entry(value, frames[tenth], frames[-1 - tenth], half, len(rounds))


def merge_tables(tables: Iterable[Table], name: str, *, force: bool = False) -> Table:
    """One table of all visits and retimings; equal ones are taken once.

    Raises UserError where the tables are for different things, and, without `force`, where their
    provenance differs. What is forced shows: the result keeps every provenance beside its visits.
    """
    first, *rest = tables
    runs: list[tuple[Provenance, list[Visit]]] = []
    seen: list[Visit] = []
    retimings: list[Retiming] = []
    for table in (first, *rest):
        retimings += [retiming for retiming in table.retimings if retiming not in retimings]
        if wrong := first.identity.differences(table.identity):
            raise UserError(f"{first.name} and {table.name} differ: {'; '.join(wrong)}")
        for provenance, visits in table.runs:
            if runs and not force and (wrong := provenance.differences(runs[0][0])):
                raise UserError(
                    f"{table.name} was measured with another {' and '.join(wrong)} than "
                    f"{first.name}; join them by force, and the result says so",
                    mend=Merge((first.name, table.name)),
                )
            new = [visit for visit in visits if visit not in seen]
            seen += new
            if runs and runs[-1][0] == provenance:
                runs[-1][1].extend(new)
            else:
                runs.append((provenance, new))
    retimings.sort(key=lambda retiming: retiming.visits[-1].date)
    joined = tuple((p, tuple(visits)) for p, visits in runs)
    return Table(first.identity, joined, name, tuple(retimings))
