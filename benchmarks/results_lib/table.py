"""A table of the page: its rows, and the runs that measured them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lut.errors import UserError

FIELDS = ("command", "machine", "versions", "date")  # that every figure needs
MISSED = "**missed**"


@dataclass(frozen=True)
class Source:
    """What measured a figure: the commands, the machine, the versions, the day.

    `machine` begins with a short name of machines.json; `usual` are the versions that the file
    lists for it. `of` says which rows or columns the source stands behind, where there are several.
    """

    commands: tuple[str, ...]
    machine: str
    versions: Mapping[str, str]
    date: str
    of: str = ""
    usual: Mapping[str, str] = field(default_factory=dict)

    def line(self) -> str:
        """All of it in one line; versions where they are not the machine's."""
        others = [
            f"{name} {version}"
            for name, version in self.versions.items()
            if _release(version) != _release(self.usual.get(name, ""))
        ]
        usual = ["its versions"] if len(others) < len(self.versions) else []
        versions = " and ".join([*usual, *([", ".join(others)] if others else [])])
        commands = ", ".join(f"`{command}`" for command in self.commands)
        before = f"{self.of}: " if self.of else ""
        return f"{before}{commands}; {self.machine}; {versions}; {self.date}"


@dataclass(frozen=True)
class Table:
    """Cells are text, or what `text` writes; at least one source, whose line follows the table."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    sources: Sequence[Source]
    note: str = ""  # what the columns mean, before the table


def text(cell: Any) -> str:
    """A cell as written: a list's values one after the other, a ratio with its range.

    A ratio is {"median": m, "low": l, "high": h}. Raises UserError for anything else that is not
    text or a number.
    """
    match cell:
        case None:
            return ""
        case str():
            return cell.replace("|", "\\|")
        case bool():
            return "yes" if cell else "no"
        case int():
            return f"{cell:,}"
        case list() | tuple():
            between = ", " if any(isinstance(value, Mapping) for value in cell) else " "
            return between.join(map(text, cell))
        case {"median": median, "low": low, "high": high, **rest} if not rest:
            return f"{text(median)} [{text(low)}..{text(high)}]"
    raise UserError(f"{cell!r} is no cell of a table: text, a whole number, a list or a ratio is")


def ratio(found: Any, digits: int = 2) -> str:
    """Median and range over the rounds."""
    values = found if isinstance(found, Mapping) else vars(found)
    median, low, high = (f"{values[name]:.{digits}f}" for name in ("median", "low", "high"))
    return f"{median} [{low}..{high}]"


def bar(met: bool, what: str = "") -> str:
    """A bar, and whether it is met."""
    verdict = "met" if met else MISSED
    return f"{what}: {verdict}" if what else verdict


def markdown(table: Table) -> str:
    """The table with its title and its sources.

    Raises UserError for a table without rows or sources, and for a row of another length.
    """
    if not table.rows or not table.sources:
        raise UserError(f"the table {table.title!r} has no rows or no source")
    lines = [f"**{table.title}.** {table.note}".strip(), ""]
    lines += [_row(table.columns), "|---" * len(table.columns) + "|"]
    for row in table.rows:
        if len(row) != len(table.columns):
            raise UserError(
                f"the table {table.title!r} has {len(table.columns)} columns, a row {len(row)}"
            )
        lines.append(_row(row))
    if len(table.sources) == 1:
        lines += ["", f"Measured by {replace(table.sources[0], of='').line()}"]
    else:
        lines += ["", "Measured by", *(f"- {source.line()}" for source in table.sources)]
    return "\n".join(lines)


def _row(cells: Sequence[Any]) -> str:
    return "| " + " | ".join(map(text, cells)) + " |"


def _release(version: str) -> str:
    """Without the build: 2.13.0+cpu is 2.13.0."""
    return version.partition("+")[0]
