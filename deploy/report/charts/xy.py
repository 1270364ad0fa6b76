"""Points and lines over two axes."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import atan2, degrees

from deploy.report.charts.axes import colour, figure, scale, x_axis, y_axis
from deploy.report.markup import Markup, join, tag

MOST_POINTS = 300  # of a line: more than there are pixels for
WIDTH, HEIGHT, _WIDE = 560.0, 330.0, 880.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 62.0, 14.0, 28.0, 48.0
_SMALL = 40  # points of a line, above which they are seen under the pointer alone


@dataclass(frozen=True)
class Point:
    """A place, what is said of it, and how large it is."""

    x: float
    y: float
    tip: str
    radius: float = 3.5


@dataclass(frozen=True)
class Series:
    """Points of one colour; `joined` by a line."""

    name: str
    points: Sequence[Point]
    joined: bool = True


@dataclass(frozen=True)
class Guide:
    """A line of no series, such as a ceiling, with a text along it, which begins behind a part of
    it: of lines that lie near each other, not the same."""

    start: tuple[float, float]
    end: tuple[float, float]
    text: str
    along: float = 0.0


def thinned(points: Sequence[Point]) -> list[Point]:
    """At most so many of a line, the last among them."""
    every = -(-len(points) // MOST_POINTS)
    return [*points[: len(points) - 1 : every], points[-1]] if every > 1 else list(points)


def xy_chart(
    caption: str, series: Sequence[Series], x_label: str, y_label: str, *, log: bool = False,
    log_y: bool = False, guides: Sequence[Guide] = (), wide: bool = False, whole: bool = False,
) -> Markup:  # fmt: skip
    """A picture of series; `log` is for both axes, `log_y` for the vertical one, `whole` says that
    the horizontal one counts things."""
    width = _WIDE if wide else WIDTH
    drawn = [Series(s.name, thinned(s.points) if s.joined else s.points, s.joined) for s in series]
    ends = [end for guide in guides for end in (guide.start, guide.end)]
    points = [point for s in drawn for point in s.points]
    across = scale(
        [*(p.x for p in points), *(x for x, _ in ends)], _LEFT, width - _RIGHT, log=log, whole=whole
    )
    up = scale(
        [*(p.y for p in points), *(y for _, y in ends)], HEIGHT - _BOTTOM, _TOP, log=log or log_y
    )
    parts = [
        x_axis(across, _TOP, HEIGHT - _BOTTOM, x_label),
        y_axis(up, _LEFT, width - _RIGHT, y_label),
    ]
    for guide in guides:
        start, end = ((across.at(x), up.at(y)) for x, y in (guide.start, guide.end))
        parts.append(_guide(start, end, guide.text, guide.along))
    for index, one in enumerate(drawn):
        places = [(across.at(p.x), up.at(p.y)) for p in one.points]
        if one.joined and len(places) > 1:
            line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
            parts.append(tag("polyline", points=line, class_=f"line {colour(index)}"))
        small = " small" * (one.joined and len(places) > _SMALL)
        parts += [
            tag("circle", cx=x, cy=y, r=point.radius, class_=f"mark {colour(index)}{small}",
                data_tip=point.tip)
            for point, (x, y) in zip(one.points, places, strict=True)
        ]  # fmt: skip
    kind = "wide" if wide else "narrow"
    return figure(kind, caption, [s.name for s in drawn], join(*parts), width, HEIGHT)


def _guide(start: tuple[float, float], end: tuple[float, float], text: str, along: float) -> Markup:
    right, down = end[0] - start[0], end[1] - start[1]
    x, y = start[0] + along * right, start[1] + along * down
    turned = f"rotate({degrees(atan2(down, right)):.1f} {x:.1f} {y:.1f})"
    return join(
        tag("line", x1=start[0], y1=start[1], x2=end[0], y2=end[1], class_="guide"),
        tag("text", text, x=x, y=y - 4, transform=turned, class_="tick") if text else None,
    )
