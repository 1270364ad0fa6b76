"""A row for each thing, with marks along one axis."""

from collections.abc import Sequence
from dataclasses import dataclass

from deploy.report.charts.axes import Scale, clipped, colour, figure, scale, x_axis
from deploy.report.markup import Markup, join, tag

WIDTH = 880.0
_ROW, _TOP, _BOTTOM, _RIGHT = 24.0, 8.0, 48.0, 24.0
_LETTER, _MOST_LETTERS = 6.6, 60  # pixels of a letter beside a row


@dataclass(frozen=True)
class Mark:
    """A value of a series, with the range around it, if any."""

    series: int
    value: float
    tip: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Row:
    """Marks in one row; `tick` is a value to reach, such as what a ceiling allows."""

    label: str
    marks: Sequence[Mark]
    tick: float | None = None


def rows_chart(
    caption: str, names: Sequence[str], rows: Sequence[Row], label: str, *, bars: bool = False,
    log: bool = False, line: float | None = None,
) -> Markup:  # fmt: skip
    """A picture of rows: dots with their ranges, or `bars` from 0 on; `line` is a value that all
    are beside."""
    values = [
        value
        for row in rows
        for value in (*(v for m in row.marks for v in (m.value, m.low, m.high)), row.tick, line)
        if value is not None
    ]
    letters = min(_MOST_LETTERS, max([4, *(len(row.label) for row in rows)]))
    left, bottom = 16 + letters * _LETTER, _TOP + _ROW * len(rows)
    across = scale(values, left, WIDTH - _RIGHT, log=log, zero=bars)
    parts = [x_axis(across, _TOP, bottom, label)]
    if line is not None:
        x = across.at(line)
        parts.append(tag("line", x1=x, x2=x, y1=_TOP, y2=bottom, class_="guide"))
    for number, row in enumerate(rows):
        y = _TOP + _ROW * (number + 0.5)
        text = tag("title", row.label) if len(row.label) > letters else None
        parts.append(
            tag("text", clipped(row.label, letters), text, x=left - 8, y=y + 4, class_="name end")
        )
        draw = _bar if bars else _dot
        parts += [draw(mark, across, y) for mark in row.marks]
        if row.tick is not None:
            x = across.at(row.tick)
            parts.append(tag("line", x1=x, x2=x, y1=y - 9, y2=y + 9, class_="goal"))
    return figure("wide", caption, names, join(*parts), WIDTH, bottom + _BOTTOM)


def _dot(mark: Mark, across: Scale, y: float) -> Markup:
    x, style = across.at(mark.value), colour(mark.series)
    ends = None
    if mark.low is not None and mark.high is not None:
        ends = tag("line", x1=across.at(mark.low), x2=across.at(mark.high), y1=y, y2=y,
                   class_=f"range {style}")  # fmt: skip
    dot = tag("circle", cx=x, cy=y, r=5.0, class_=f"mark {style}", data_tip=mark.tip)
    return join(ends, dot)


def _bar(mark: Mark, across: Scale, y: float) -> Markup:
    start, end = across.at(0.0), across.at(mark.value)
    return tag("rect", x=start, y=y - 8, width=max(end - start, 1.0), height=16.0,
               class_=f"bar {colour(mark.series)}", data_tip=mark.tip)  # fmt: skip
