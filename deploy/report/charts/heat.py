"""Values as colours: rows and columns."""

from collections.abc import Sequence
from math import log

from deploy.report.charts.axes import figure
from deploy.report.markup import Markup, join, tag

SHADES = 10  # in page.css
_CELL, _ROW, _TOP, _LETTER = 29.0, 22.0, 8.0, 6.6


def heat_chart(
    caption: str, rows: Sequence[str], columns: Sequence[str],
    values: Sequence[Sequence[float | None]], tips: Sequence[Sequence[str]], *, log_scale: bool,
    digits: int = 0,
) -> Markup:  # fmt: skip
    """A picture of `values[row][column]`; None stays empty. The scale is logarithmic only where all
    are above 0."""
    known = [value for line in values for value in line if value is not None]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    log_scale = log_scale and low > 0
    left = 12 + _LETTER * max(map(len, rows), default=0)
    bottom = _TOP + _ROW * len(rows)
    parts: list[Markup] = []
    for y, (name, line, texts) in enumerate(zip(rows, values, tips, strict=True)):
        top = _TOP + _ROW * y
        parts.append(tag("text", name, x=left - 8, y=top + 15, class_="name end"))
        for x, (value, tip) in enumerate(zip(line, texts, strict=True)):
            if value is None:
                continue
            shade = _shade(value, low, high, log_scale=log_scale)
            begin = left + _CELL * x
            parts += [
                tag("rect", x=begin, y=top, width=_CELL - 1, height=_ROW - 1,
                    class_=f"cell q{shade}", data_tip=tip),
                tag("text", f"{value:.{digits}f}", x=begin + _CELL / 2 - 0.5, y=top + 15,
                    class_=f"value middle q{shade}"),
            ]  # fmt: skip
    for x, name in enumerate(columns):
        at = left + _CELL * (x + 0.5) + 4
        parts.append(
            tag("text", name, x=at, y=bottom + 8, class_="tick end",
                transform=f"rotate(-60 {at:.1f} {bottom + 8:.1f})")
        )  # fmt: skip
    height = bottom + 20 + 0.87 * _LETTER * max(map(len, columns), default=0)
    return figure("heat", caption, (), join(*parts), left + _CELL * len(columns) + 8, height)


def _shade(value: float, low: float, high: float, *, log_scale: bool) -> int:
    if high <= low:
        return 0
    if log_scale:
        value, low, high = log(value), log(low), log(high)
    return min(SHADES - 1, int(SHADES * (value - low) / (high - low)))
