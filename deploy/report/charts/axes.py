"""Scales, ticks, and the frame that every picture stands in."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor, isclose, log10

from deploy.report.markup import Markup, join, tag

COLOURS = 8  # of series, in page.css
_TICKS = 6
_FAR = 1e100  # no scale goes farther: what lies there is drawn at the edge


@dataclass(frozen=True)
class Scale:
    """From values to pixels; logarithmic ones are for values above 0, `whole` ones for numbers of
    things."""

    low: float
    high: float
    begin: float
    end: float
    log: bool = False
    whole: bool = False

    def at(self, value: float) -> float:
        """The pixel of a value; one outside is drawn at the edge."""
        value = min(max(value, self.low), self.high)
        low, high = self._of(self.low), self._of(self.high)
        return self.begin + (self._of(value) - low) / (high - low) * (self.end - self.begin)

    def _of(self, value: float) -> float:
        return log10(value) if self.log else value

    def ticks(self) -> list[float]:
        """Round values inside."""
        if not self.log:
            step = _round_up((self.high - self.low) / _TICKS)
            step = max(step, 1.0) if self.whole else step
            first = ceil(self.low / step - 1e-9)
            return [n * step for n in range(first, floor(self.high / step + 1e-9) + 1)]
        decades = range(floor(log10(self.low)), ceil(log10(self.high)) + 1)
        few = log10(self.high / self.low)
        steps = (1,) if few > 3 else (1, 3) if few > 2 else (1, 2, 5) if few > 0.6 else range(1, 10)
        found = [step * 10.0**n for n in decades for step in steps]
        return [value for value in found if self.low <= value <= self.high]


def scale(
    values: Iterable[float], begin: float, end: float, *, log: bool = False, zero: bool = False,
    whole: bool = False,
) -> Scale:  # fmt: skip
    """A scale around values, with some air; from 0 on with `zero`."""
    found = [min(max(v, -_FAR), _FAR) for v in values if v > 0 or not log] or [1.0]
    low, high = min(found), max(found)
    if log:
        low, high = max(low, 1 / _FAR), max(high, 1 / _FAR)
        air = max((high / low) ** 0.06, 1.15)
        return Scale(low / air, high * air, begin, end, log=True)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    span = high - low
    if isclose(span, 0.0, abs_tol=1e-300) or span <= 1e-12 * abs(high):
        span = abs(high) or 1.0
        low = low if zero else low - span / 2
        high = high + span / 2
        span = high - low
    air = span * 0.06
    return Scale(low if zero and low == 0 else low - air, high + air, begin, end, whole=whole)


def _round_up(step: float) -> float:
    power = 10.0 ** floor(log10(step))
    return next(n * power for n in (1, 2, 2.5, 5, 10) if n * power >= step * (1 - 1e-9))


def show(value: float) -> str:
    """A value beside an axis: up to four digits, powers of ten where it is far from 1."""
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e7:
        return f"{value:.3g}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def x_axis(scale: Scale, top: float, bottom: float, label: str) -> Markup:
    """Lines from `top` to `bottom`, ticks and the label below."""
    parts = []
    for value in scale.ticks():
        x = scale.at(value)
        parts += [
            tag("line", x1=x, x2=x, y1=top, y2=bottom, class_="grid"),
            tag("text", show(value), x=x, y=bottom + 17, class_="tick middle"),
        ]
    middle = (scale.begin + scale.end) / 2
    return join(*parts, tag("text", label, x=middle, y=bottom + 37, class_="label middle"))


def y_axis(scale: Scale, left: float, right: float, label: str) -> Markup:
    """Lines from `left` to `right`, ticks, and the label above them."""
    parts = []
    for value in scale.ticks():
        y = scale.at(value)
        parts += [
            tag("line", x1=left, x2=right, y1=y, y2=y, class_="grid"),
            tag("text", show(value), x=left - 8, y=y + 4, class_="tick end"),
        ]
    return join(*parts, tag("text", label, x=4.0, y=14.0, class_="label"))


def figure(
    kind: str, caption: str, names: Sequence[str], body: Markup, width: float, height: float
) -> Markup:
    """A picture with its caption and, where there are several series, their colours. By its kind
    the page knows how wide it may be."""
    keys = [
        tag("li", tag("svg", tag("circle", cx=6.0, cy=6.0, r=5.0, class_=colour(index)),
            width="12", height="12", aria_hidden="true"), name)
        for index, name in enumerate(names)
    ]  # fmt: skip
    picture = tag(
        "svg", body, viewBox=f"0 0 {width:.0f} {height:.0f}", role="img", aria_label=caption,
        width=f"{width:.0f}", height=f"{height:.0f}",
    )  # fmt: skip
    return tag(
        "figure",
        tag("figcaption", caption),
        tag("ul", *keys, class_="legend") if len(keys) > 1 else None,
        tag("div", picture, class_="scroll"),
        class_=kind,
    )


def side_by_side(*figures: Markup | None) -> Markup:
    """Pictures beside each other, where the page is wide enough."""
    return tag("div", *figures, class_="figures")


def colour(index: int) -> str:
    """The class of a series; behind the last colour they begin again, hollow or dashed."""
    return f"s{index % COLOURS}{' again' * (index >= COLOURS)}"


def clipped(text: str, most: int) -> str:
    """A label that is not longer than there is room for."""
    return text if len(text) <= most else f"{text[: most - 1]}…"
