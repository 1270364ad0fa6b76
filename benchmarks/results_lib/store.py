"""The files of benchmarks/results/, and what is known of each: command, machine, versions, date."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.results_lib.table import FIELDS, Source, Table
from lut.errors import UserError
from lut.files import read_file
from lut.jsonl import read_records

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "benchmarks" / "results"
TABLES = "tables"  # the folder of files that are tables already


class Store:
    """Reads result files and remembers which.

    `sources.json` says what a file does not say of itself, by the file's name; `machines.json`
    describes the machines. Names are relative to `folder`.
    """

    def __init__(self, folder: Path = FOLDER, root: Path = ROOT) -> None:
        self.folder, self.root = folder, root
        self.read: set[Path] = set()
        self.machines: dict[str, dict[str, Any]] = self.json("machines.json")
        self._sources: dict[str, Any] = self.json("sources.json")
        self._kept: dict[str, Table] | None = None
        for name, machine in self.machines.items():
            for field in ("about", "versions"):
                _field(f"{self.folder / 'machines.json'}, {name}", machine, field)

    def path(self, name: str) -> Path:
        """Where a file is: below the folder, or below the repository for ``/hmseg/...``."""
        path = self.root / name[1:] if name.startswith("/") else self.folder / name
        self.read.add(path)
        return path

    def json(self, name: str, *, exact: bool = False) -> Any:
        """A JSON file; raises UserError where there is none or it is not JSON.

        With `exact`, fractions are the text that the file has: 0.990 keeps its last digit.
        """
        path = self.path(name)
        try:
            return json.loads(read_file(path), parse_float=str if exact else float)
        except ValueError as error:
            raise UserError(f"{path}: not JSON ({error})") from error

    def lines(self, name: str) -> list[dict[str, Any]]:
        """A file of JSON lines; raises as `json`."""
        path = self.path(name)
        read_file(path)  # for the error where there is none
        return read_records(path)

    def names(self, pattern: str) -> list[str]:
        """The files that match, sorted."""
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.glob(pattern))

    def source(self, name: str, *, of: str = "", chip: str = "", **said: Any) -> Source:
        """Where a file's figures come from: what it says (`said`) and what sources.json adds.

        `chip`, a processor's or GPU's name in the file, finds the machine where sources.json names
        none. Raises UserError for a field that is missing or is said twice.
        """
        added = self._sources.get(name, {})
        if twice := sorted(set(said) & set(added)):
            raise UserError(f"{name} says {', '.join(twice)} itself, and sources.json once more")
        known = {**said, **added}
        if chip and "machine" not in known:
            found = [key for key, machine in self.machines.items() if machine.get("chip") == chip]
            if len(found) != 1:
                raise UserError(
                    f"{name}: machines.json has {len(found)} machines with the chip {chip!r}; "
                    "describe it there, or name one in sources.json"
                )
            known["machine"] = found[0]
        return self._source(f"{name} (or sources.json for it)", {"of": of, **known})

    def tables(self) -> dict[str, Table]:
        """What the files of `tables/` hold, by name; raises UserError for anything missing."""
        if self._kept is None:
            self._kept = {}
            for file in self.names(f"{TABLES}/*.json"):
                content = self.json(file, exact=True)
                for entry in _field(file, content, "tables"):
                    name = _field(file, entry, "name")
                    if name in self._kept:
                        raise UserError(f"{file}: there are two tables of the name {name!r}")
                    self._kept[name] = self._table(f"{file}, {name}", entry)
        return self._kept

    def _table(self, where: str, entry: Mapping[str, Any]) -> Table:
        return Table(
            _field(where, entry, "title"),
            _field(where, entry, "columns"),
            _field(where, entry, "rows"),
            [self._source(where, source) for source in _field(where, entry, "sources")],
            entry.get("note", ""),
        )

    def _source(self, where: str, known: Mapping[str, Any]) -> Source:
        if missing := [name for name in FIELDS if not known.get(name)]:
            raise UserError(f"{where} does not say its {', '.join(missing)}")
        commands = known["command"]
        date, machine = known["date"][:10], known["machine"]
        if not re.fullmatch(r"\d{4}-\d\d-\d\d", date):
            raise UserError(f"{where}: {known['date']!r} is no date")
        named = [n for n in self.machines if re.match(rf"{re.escape(n)}(?!\w)", machine)]
        if not named:
            raise UserError(f"{where}: machines.json does not describe {machine!r}")
        usual = self.machines[max(named, key=len)]["versions"]
        return Source(
            tuple([commands] if isinstance(commands, str) else commands), machine,
            known["versions"], date, known.get("of", ""), usual,
        )  # fmt: skip


def kept(*names: str) -> Callable[[Store], list[Table]]:
    """The tables of these names from the files in `tables/`, for a topic's list."""

    def tables(store: Store) -> list[Table]:
        found = store.tables()
        if missing := [name for name in names if name not in found]:
            raise UserError(f"no file of {store.folder / TABLES} has the table {missing[0]!r}")
        return [found[name] for name in names]

    tables.names = names  # type: ignore[attr-defined]
    return tables


def _field(where: str, content: Any, name: str) -> Any:
    value = content.get(name) if isinstance(content, dict) else None
    if not value:
        raise UserError(f"{where} lacks {name!r}")
    return value


def for_each(commands: Sequence[str]) -> tuple[str, ...]:
    """Each once, those that differ in the networks alone as one for each NETWORK, without the
    places of files."""
    short = (re.sub(r" --(cache|output) \S+| --again", "", command) for command in commands)
    return unique([re.sub(r" --(networks|models)( [^-]\S*)+", r" --\1 NETWORK", s) for s in short])


def unique(values: Sequence[str]) -> tuple[str, ...]:
    """Each once, in order."""
    return tuple(dict.fromkeys(values))
