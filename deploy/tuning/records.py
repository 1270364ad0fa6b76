"""Tuning records: JSON Lines, one measured candidate each, append-only.

A record is believed only under the key it was measured for: the target's own key, the number of
threads (0 where there are none), and the version of the kernels. The kernel's operation and
schedule are stored as text and as fields, so that a record can be read without this program.
"""

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deploy.schedules import Fields
from lut.errors import UserError
from lut.files import cache_folder
from lut.json_text import checked, texts_by_name
from lut.jsonl import append_record, read_records
from lut.table_file import CarryOver

SHIPPED = Path(__file__).parent / "data"
# A candidate replaces the rule only where it is this much faster inside the whole network; less
# is within what repeating the measurement gives.
MIN_GAIN = 1.05
_MOST_NS = 1 << 63  # of a time: JSON's integers may be of any size


@dataclass(frozen=True)
class Record:
    """One candidate beside the rule's schedule, timed in the same run, frame by frame.

    rule_ns and candidate_ns are the medians of the kernel's time in each round, in nanoseconds;
    both empty where the candidate could not be used, and `refused` says why.
    """

    target: str
    threads: int
    kernels_version: int
    spec: str
    schedule: dict[str, Any]
    rule_ns: tuple[int, ...]
    candidate_ns: tuple[int, ...]
    refused: str
    machine: str
    versions: dict[str, str]
    date: str

    @property
    def gain(self) -> float:
        """Rule's time over the candidate's in the round where the candidate did worst."""
        if not self.candidate_ns:
            return 0.0
        return min(r / c for r, c in zip(self.rule_ns, self.candidate_ns, strict=True))


def default_folder() -> Path:
    """Where a user's own records live."""
    return cache_folder() / "tuning"


def load_records(folders: Iterable[Path]) -> list[Record]:
    """Every record in the ``*.jsonl`` files of these folders.

    Raises UserError naming the file and the record where a field is missing, unknown or of another
    type, and for one from before operations had a text of their own.
    """
    records = []
    for folder in folders:
        for path in sorted(folder.glob("*.jsonl")):
            for number, values in enumerate(read_records(path), 1):
                if is_old(values.get("spec")):
                    raise UserError(
                        f"{path}, record {number}: from before operations had a text of their own; "
                        "carry it over", mend=CarryOver(str(path)),
                    )  # fmt: skip
                try:
                    records.append(_read(values))
                except UserError as error:
                    raise UserError(f"{path}, record {number}: {error}") from error
    return records


def _read(values: dict[str, Any]) -> Record:
    known = checked(Record, values)
    texts_by_name("versions", known["versions"])
    if not isinstance(known["schedule"], dict):
        raise UserError(f"the schedule is {known['schedule']!r:.40}, not fields by name")
    times = {name: known[name] for name in ("rule_ns", "candidate_ns")}
    for name, rounds in times.items():
        if not isinstance(rounds, list) or not all(
            type(ns) is int and 0 < ns < _MOST_NS for ns in rounds
        ):
            raise UserError(f"{name} is {rounds!r:.40}, not nanoseconds of each round")
    if len(known["rule_ns"]) != len(known["candidate_ns"]):
        raise UserError("rule_ns and candidate_ns are of different numbers of rounds")
    return Record(**known | {name: tuple(rounds) for name, rounds in times.items()})


def is_old(spec: object) -> bool:
    """Whether a record's spec is from before operations had a text of their own."""
    return isinstance(spec, str) and re.match(r"\w+Spec\(", spec) is not None


def append(record: Record, path: Path) -> None:
    """Add one record to a file; it is on disk, whole, when this returns."""
    append_record(path, asdict(record))


def matching(
    records: Iterable[Record], target_key: str, threads: int, kernels_version: int
) -> list[Record]:
    """Those measured for this target, thread count and version of the kernels."""
    wanted = (target_key, threads, kernels_version)
    return [r for r in records if (r.target, r.threads, r.kernels_version) == wanted]


def winners(records: Iterable[Record]) -> dict[str, Fields]:
    """For each operation, as text, the fields of the schedule that won by more than `MIN_GAIN`."""
    best: dict[str, Record] = {}
    for record in records:
        known = best.get(record.spec)
        if record.gain >= MIN_GAIN and (known is None or record.gain > known.gain):
            best[record.spec] = record
    return {spec: record.schedule for spec, record in best.items()}


def trials_without_gain(records: Iterable[Record]) -> int:
    """How many records of one kernel, in the order of their measuring, there are since the last
    that beat the best before it, the rule or a record, by `MIN_GAIN`."""
    best, count = 1.0, 0
    for record in records:
        count += 1
        if record.gain >= MIN_GAIN * best:
            best, count = record.gain, 0
    return count


def tuned_schedules(
    target_key: str, threads: int, kernels_version: int, folders: Iterable[Path] | None = None
) -> dict[str, Fields]:
    """The winners in these folders, by default the shipped ones and the user's own."""
    records = load_records([SHIPPED, default_folder()] if folders is None else folders)
    return winners(matching(records, target_key, threads, kernels_version))
