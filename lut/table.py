"""The measured table of one device, resolution and width: load, query, append, merge.

A file of JSON lines, append-only: a header that says what the table is for, then for each run of
measurements its provenance, followed by its visits. A miss raises: nothing is measured or guessed
behind the caller's back.
"""

import fcntl
import json
import os
import re
import shlex
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

from lut.errors import UserError, WorkError
from lut.files import size_of
from lut.jsonl import append_record, read_records, rewrite_records
from lut.ops import Operation
from lut.provenance import Provenance, checked
from lut.record import Visit
from lut.student import t95

FORMAT = "hmseg-latency-table"
FORMAT_VERSION = 2
UNIT = "us"
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
    def precision(self) -> str:
        """Of the maps: what the target's key says, else fp32."""
        found = re.search(r'"precision":"(\w+)"', self.target)
        return found[1] if found else "fp32"

    def command(self, path: Path | str) -> str:
        """The command that measures what is missing, on the machine that the table is of."""
        # A target that was given as JSON has no other name.
        target = self.target if self.target_name == "json" else self.target_name
        what = (
            f"hmseg-deploy lut build --target {shlex.quote(target)} --resolution "
            f"{self.resolution} --width {self.width:g}"
        )
        place = f"-o {shlex.quote(str(path))}"
        if not self.threads:
            half = "" if self.precision == "fp32" else f" --precision {self.precision}"
            return f"{what}{half} {place}"
        device = "(with --rpc-key where it is a table of a device)"
        return f"{what} --threads {self.threads} {place} {device}"

    def differences(self, other: "Identity") -> list[str]:
        """The fields in which two tables are for different things, in words."""
        return [
            f"{f.name} {getattr(self, f.name)!r} and {getattr(other, f.name)!r}"
            for f in fields(self)
            if f.name != "target_name" and getattr(self, f.name) != getattr(other, f.name)
        ]


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

    @property
    def visits(self) -> list[Visit]:
        """All measurements, in the order of the file."""
        return [visit for _, visits in self.runs for visit in visits]

    @cached_property
    def baseline_us(self) -> float:
        """The reference network's time to which every sample is scaled: its median."""
        drifts = [drift for visit in self.visits for drift in visit.drift_us]
        if not drifts:
            raise UserError(f"{self.name} is empty; run {self.identity.command(self.name)}")
        return median(drifts)

    @cached_property
    def entries(self) -> dict[Operation, Entry]:
        """Every entry that has been measured."""
        found: dict[Operation, list[Visit]] = {}
        for visit in self.visits:
            if visit.role == "entries":
                for key in visit.entries:
                    found.setdefault(key, []).append(visit)
        return {key: _summarise(key, visits, self.baseline_us) for key, visits in found.items()}

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
    def calibration(self) -> list[Visit]:
        """Whole networks that did not contribute to the entries."""
        return [visit for visit in self.visits if visit.role == "calibration"]

    def entry(self, key: Operation) -> Entry:
        """An entry; raises UserError with the command that measures it where it is missing."""
        found = self.entries.get(key)
        if found is None:
            raise UserError(
                f"{self.name} has no entry '{key}'; measure it: {self.identity.command(self.name)}"
            )
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
                f"table of these, or run {wanted.command('TABLE.jsonl')}"
            )


def _summarise(key: Operation, visits: list[Visit], baseline_us: float) -> Entry:
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


def load_table(path: Path) -> Table:
    """Read a table; raises UserError naming the line for anything that is wrong with it.

    A last line that was cut short is dropped with a warning.
    """
    if size_of(path) is None:
        raise UserError(f"{path}: no such table; make one with hmseg-deploy lut build -o {path}")
    return parse_table(read_records(path), str(path))


def parse_table(records: list[dict[str, Any]], name: str) -> Table:
    """The table that a file's records hold; raises UserError as `load_table`."""
    identity: Identity | None = None
    runs: list[tuple[Provenance, list[Visit]]] = []
    for number, record in enumerate(records, 1):
        try:
            kind, values = record.get("kind"), {k: v for k, v in record.items() if k != "kind"}
            if number == 1:
                identity = _header(kind, values)
            elif kind == "provenance":
                runs.append((Provenance.from_json(values), []))
            elif kind == "visit" and runs:
                runs[-1][1].append(Visit.from_json(values))
            else:
                raise UserError(f"a record of kind {kind!r} has no place here")
        except UserError as error:
            raise UserError(f"{name}, line {number}: {error}") from error
    if identity is None:
        raise UserError(f"{name}: not a latency table: it has no line")
    return Table(identity, tuple((p, tuple(visits)) for p, visits in runs), name)


def _header(kind: Any, values: dict[str, Any]) -> Identity:  # noqa: ANN401 - any JSON value
    if kind != FORMAT:
        raise UserError("not a latency table of hmseg")
    version, unit = values.pop("format_version", None), values.pop("unit", None)
    if type(version) is not int or version < 1:
        raise UserError(f"the format version is {version!r}")
    if version < FORMAT_VERSION:
        raise UserError("from before operations had a text of their own; carry it over first")
    if version > FORMAT_VERSION:
        raise UserError(
            f"format version {version} is newer than this program's {FORMAT_VERSION}; update hmseg"
        )
    if unit != UNIT:
        raise UserError(f"the unit is {unit!r}; latencies are in microseconds, {UNIT!r}")
    return Identity(**checked(Identity, values))


def _lines(table: Table) -> Iterator[dict[str, Any]]:
    yield {"kind": FORMAT, "format_version": FORMAT_VERSION, "unit": UNIT, **asdict(table.identity)}
    for provenance, visits in table.runs:
        yield {"kind": "provenance", **provenance.to_json()}
        for visit in visits:
            yield {"kind": "visit", **visit.to_json()}


def save_table(table: Table, path: Path) -> None:
    """Write a table whole or not at all; raises UserError where a builder is at work on it."""
    with lock_table(path):
        _save(table, path)


def _save(table: Table, path: Path) -> None:
    rewrite_records(path, list(_lines(table)))


class Writer:
    """A table open for one builder; make one with `open_table`."""

    def __init__(self, path: Path, table: Table) -> None:
        self.path, self.table = path, table

    def append(self, visit: Visit) -> None:
        """Add a visit; it is on disk, whole, when this returns.

        Raises WorkError for one that could not be read back, such as a sample of 0 ns.
        """
        record = visit.to_json()
        try:
            Visit.from_json(json.loads(json.dumps(record)))
        except UserError as error:
            raise WorkError(
                f"the measurement of {visit.network} is of no use and was not kept: {error}; is "
                "the device's clock too coarse?"
            ) from error
        append_record(self.path, {"kind": "visit", **record})
        *before, (provenance, visits) = self.table.runs
        runs = (*before, (provenance, (*visits, visit)))
        self.table = Table(self.table.identity, runs, self.table.name)


@contextmanager
def open_table(path: Path, identity: Identity, provenance: Provenance) -> Iterator[Writer]:
    """Create a table, or go on with one, as its only builder.

    What a builder that was killed left half-written is dropped; a table without measurements is
    begun anew. Raises UserError where another builder is at work, where the table is for something
    else or of another provenance, and for a file that is no table: it is left as it is.
    """
    with lock_table(path):
        table = Table(identity, ((provenance, ()),), str(path))
        found = parse_table(read_records(path), str(path)) if size_of(path) else None
        if found is None or not found.visits:
            _save(table, path)
            yield Writer(path, table)
            return
        table = found
        if wrong := identity.differences(table.identity):
            raise UserError(f"{path} is for something else: {'; '.join(wrong)}; name another file")
        if wrong := provenance.differences(table.runs[-1][0]):
            raise UserError(
                f"{path} was measured with another {' and '.join(wrong)}; name another file, and "
                "join the two with hmseg-deploy lut merge --force if they may be mixed"
            )
        yield Writer(path, table)


@contextmanager
def lock_table(path: Path) -> Iterator[None]:
    """Hold the lock file beside a table; the kernel gives it back when the process ends.

    Raises UserError where another process holds it.
    """
    path = Path(os.path.realpath(path))  # a link's lock is that of its file
    lock = path.with_name(f".{path.name}.lock")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        file = lock.open("w")
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"another process is building {path}; wait for it, or name another file"
            ) from None
        yield


def merge_tables(tables: Iterable[Table], name: str, *, force: bool = False) -> Table:
    """One table of all visits; equal ones are taken once.

    Raises UserError where the tables are for different things, and, without `force`, where their
    provenance differs. What is forced shows: the result keeps every provenance beside its visits.
    """
    first, *rest = tables
    runs: list[tuple[Provenance, list[Visit]]] = []
    seen: list[Visit] = []
    for table in (first, *rest):
        if wrong := first.identity.differences(table.identity):
            raise UserError(f"{first.name} and {table.name} differ: {'; '.join(wrong)}")
        for provenance, visits in table.runs:
            if runs and not force and (wrong := provenance.differences(runs[0][0])):
                raise UserError(
                    f"{table.name} was measured with another {' and '.join(wrong)} than "
                    f"{first.name}; --force mixes them, and the result says so"
                )
            new = [visit for visit in visits if visit not in seen]
            seen += new
            if runs and runs[-1][0] == provenance:
                runs[-1][1].extend(new)
            else:
                runs.append((provenance, new))
    return Table(first.identity, tuple((p, tuple(visits)) for p, visits in runs), name)
