"""Tables as files: load, save, go on.

JSON lines, append-only: a header that says what the table is for, then for each run of measurements
its provenance, followed by its visits; and one record for each time that its calibration networks
were timed again. A file with such a record says version 3: programs that do not know it would give
the estimates of another day.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lut.errors import UserError, WorkError
from lut.files import hold_lock, size_of
from lut.json_text import checked
from lut.jsonl import PACKED, append_record, read_records, rewrite_records, stored
from lut.provenance import Provenance
from lut.record import Visit
from lut.retiming import Retiming
from lut.table import Identity, Measure, Merge, Table

FORMAT = "hmseg-latency-table"
FORMAT_VERSION = 2
RETIMED_VERSION = 3  # of a table with a retiming
UNIT = "us"


@dataclass(frozen=True)
class CarryOver:
    """What would help: to rewrite the file at `path`, of an earlier version, as one of this."""

    path: str


def load_table(path: Path) -> Table:
    """Read a table; raises UserError naming the line for anything that is wrong with it.

    A last line that was cut short is dropped with a warning.
    """
    if stored(path) is None:
        raise UserError(f"{path}: no such table; measure one", mend=Measure(None, str(path)))
    return parse_table(read_records(path), str(path))


def parse_table(records: list[dict[str, Any]], name: str) -> Table:
    """The table that a file's records hold; raises UserError as `load_table`."""
    identity: Identity | None = None
    runs: list[tuple[Provenance, list[Visit]]] = []
    retimings: list[Retiming] = []
    for number, record in enumerate(records, 1):
        try:
            kind, values = record.get("kind"), {k: v for k, v in record.items() if k != "kind"}
            if number == 1:
                identity = _header(kind, values, name)
            elif kind == "provenance":
                runs.append((Provenance.from_json(values), []))
            elif kind == "visit" and runs:
                runs[-1][1].append(Visit.from_json(values))
            elif kind == "retiming" and runs:
                retimings.append(Retiming.from_json(values))
            else:
                raise UserError(f"a record of kind {kind!r} has no place here")
        except UserError as error:
            raise UserError(f"{name}, line {number}: {error}") from error
    if identity is None:
        raise UserError(f"{name}: not a latency table: it has no line")
    joined = tuple((p, tuple(visits)) for p, visits in runs)
    return Table(identity, joined, name, tuple(retimings))


def _header(kind: Any, values: dict[str, Any], name: str) -> Identity:  # noqa: ANN401 - JSON
    if kind != FORMAT:
        raise UserError("not a latency table of hmseg")
    version, unit = values.pop("format_version", None), values.pop("unit", None)
    if type(version) is not int or version < 1:
        raise UserError(f"the format version is {version!r}")
    if version < FORMAT_VERSION:
        raise UserError(
            "from before operations had a text of their own; carry it over first",
            mend=CarryOver(name),
        )
    if version > RETIMED_VERSION:
        raise UserError(
            f"format version {version} is newer than this program's {RETIMED_VERSION}; update hmseg"
        )
    if unit != UNIT:
        raise UserError(f"the unit is {unit!r}; latencies are in microseconds, {UNIT!r}")
    return Identity(**checked(Identity, values))


def _lines(table: Table) -> Iterator[dict[str, Any]]:
    version = RETIMED_VERSION if table.retimings else FORMAT_VERSION
    yield {"kind": FORMAT, "format_version": version, "unit": UNIT, **asdict(table.identity)}
    for provenance, visits in table.runs:
        yield {"kind": "provenance", **provenance.to_json()}
        for visit in visits:
            yield {"kind": "visit", **visit.to_json()}
    for retiming in table.retimings:
        yield {"kind": "retiming", **retiming.to_json()}


def save_table(table: Table, path: Path) -> None:
    """Write a table whole or not at all; raises UserError where a builder is at work on it."""
    with lock_table(path):
        _save(table, path)


def _save(table: Table, path: Path) -> None:
    rewrite_records(path, list(_lines(table)))


def add_retiming(path: Path, retiming: Retiming, out: Path) -> Table:
    """Write the table at `path` with one more retiming to `out`, which may be `path`, whole or not
    at all; returns it.

    Raises UserError as `load_table` and, where they are one file, `require_growing`, and where a
    builder is at work on `out`; WorkError for measurements that could not be read back.
    """
    if out == path:
        require_growing(path)
    try:
        Retiming.from_json(json.loads(json.dumps(retiming.to_json())))
    except UserError as error:
        raise WorkError(f"what was measured is of no use and was not kept: {error}") from error
    with lock_table(out):
        table = load_table(path)
        table = replace(table, retimings=(*table.retimings, retiming), name=str(out))
        _save(table, out)
    return table


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
        self.table = replace(self.table, runs=runs)


def require_growing(path: Path) -> None:
    """Raise UserError for a table that is packed, to which nothing can be added."""
    if (packed := stored(path)) and packed.suffix == PACKED:
        raise UserError(
            f"{packed} is packed, and cannot grow; run: unxz {packed}, or name another file"
        )


@contextmanager
def open_table(path: Path, identity: Identity, provenance: Provenance) -> Iterator[Writer]:
    """Create a table, or go on with one, as its only builder.

    What a builder that was killed left half-written is dropped; a table without measurements is
    begun anew. Raises UserError where another builder is at work, where the table is for something
    else or of another provenance, and for a file that is no table: it is left as it is.
    """
    require_growing(path)
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
                "join the two if they may be mixed", mend=Merge((str(path), "OTHER.jsonl")),
            )  # fmt: skip
        yield Writer(path, table)


@contextmanager
def lock_table(path: Path) -> Iterator[None]:
    """Hold the lock file beside a table (`hold_lock`)."""
    path = Path(os.path.realpath(path))  # a link's lock is that of its file
    lock = path.with_name(f".{path.name}.lock")
    with hold_lock(lock, f"another process is building {path}; wait for it, or name another file"):
        yield
