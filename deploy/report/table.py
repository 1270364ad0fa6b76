"""Tables that can be sorted by any column."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from deploy.measure.statistics import Ratio
from deploy.report.markup import Markup, tag


@dataclass(frozen=True)
class Number:
    """A figure: as it is shown, and as it is sorted. `tip` is shown with the pointer on it."""

    text: str
    value: float
    tip: str = ""


Cell: TypeAlias = str | Markup | Number


def number(value: float, digits: int = 2, unit: str = "") -> Number:
    """A figure with so many decimals."""
    return Number(f"{value:,.{digits}f}{unit}", value)


def share(value: float, digits: int = 1) -> Number:
    """A share in percent."""
    return Number(f"{value:.{digits}%}", value)


def ratio_cell(ratio: Ratio) -> Number:
    """A ratio with its spread over the rounds."""
    text = f"{ratio.median:.2f} [{ratio.low:.2f}..{ratio.high:.2f}]"
    return Number(text, ratio.median, f"median and range over {ratio.rounds} rounds")


def table(columns: Sequence[str], rows: Sequence[Sequence[Cell]], caption: str = "") -> Markup:
    """A table whose heads are buttons that sort it. An empty cell says that there is no figure."""
    heads = [
        tag("th", tag("button", column, type="button"), scope="col", class_=_class(rows, index))
        for index, column in enumerate(columns)
    ]
    body = [tag("tr", *map(_cell, row)) for row in rows]
    return tag(
        "div",
        tag(
            "table",
            tag("caption", caption) if caption else None,
            tag("thead", tag("tr", *heads)),
            tag("tbody", *body),
        ),
        class_="scroll",
    )


def folded(title: str, *blocks: Markup) -> Markup:
    """Something long, which is opened by a click."""
    return tag("details", tag("summary", title), *blocks)


def _class(rows: Sequence[Sequence[Cell]], index: int) -> str | None:
    return "number" if any(isinstance(row[index], Number) for row in rows) else None


def _cell(cell: Cell) -> Markup:
    if isinstance(cell, Number):
        # All digits: rows that are shown alike are still in order.
        value = repr(float(cell.value))
        return tag("td", cell.text, class_="number", data_value=value, title=cell.tip or None)
    return tag("td", cell)
