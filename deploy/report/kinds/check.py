"""`lut check --json`: estimates of a latency table beside networks that it has not seen."""

from collections.abc import Sequence
from dataclasses import dataclass

from deploy.report.charts.xy import Guide, Point, Series, xy_chart
from deploy.report.content import Content
from deploy.report.kind import Kind
from deploy.report.markup import Markup, join, tag
from deploy.report.source import Source, article
from deploy.report.table import Cell, folded, number, share, table


@dataclass(frozen=True)
class Network:
    """One network, in milliseconds."""

    name: str
    estimate_ms: float
    measured_ms: float

    @property
    def error(self) -> float:
        """Relative; above zero the estimate is too high."""
        return self.estimate_ms / self.measured_ms - 1


@dataclass(frozen=True)
class CheckFile:
    """One check."""

    source: Source
    networks: tuple[Network, ...]
    mean_error: float
    worst_error: float
    tau: float
    passed: bool


def _recognises(content: Content) -> bool:
    return content.first.keys() >= {"table", "rows", "kendall_tau", "within_upper"}


def _read(content: Content) -> CheckFile:
    (fields, *_) = content.fields()
    networks = tuple(
        Network(row.text("network"), row.positive("estimate_us") / 1e3,
                row.positive("measured_us") / 1e3)
        for row in fields.each("rows")
    )  # fmt: skip
    return CheckFile(
        Source(content.name, fields.text("table")), networks, fields.number("mean_error"),
        fields.number("worst_error"), fields.number("kendall_tau"),
        fields.values.get("passed") is True,
    )  # fmt: skip


def _draw(found: Sequence[CheckFile]) -> Markup:
    return join(*map(_article, found))


def _article(one: CheckFile) -> Markup:
    said = (
        f"{len(one.networks)} networks: mean error {one.mean_error:.2%}, worst "
        f"{one.worst_error:.2%}, Kendall's tau {one.tau:.3f}; "
        f"{'passed' if one.passed else 'failed'}."
    )
    if not one.networks:
        return article(one.source, tag("p", said))
    points = [
        Point(n.measured_ms, n.estimate_ms,
              f"estimate {n.estimate_ms:.3f} ms, measured {n.measured_ms:.3f} ms, {n.error:+.1%}; "
              f"{n.name}")
        for n in one.networks
    ]  # fmt: skip
    ends = [value for n in one.networks for value in (n.estimate_ms, n.measured_ms)]
    low, high = min(ends), max(ends)
    rows: list[list[Cell]] = [
        [n.name, number(n.estimate_ms, 3), number(n.measured_ms, 3), share(n.error)]
        for n in one.networks
    ]
    return article(
        one.source,
        tag("p", said),
        xy_chart("Estimate over measurement; on the line both are equal",
                 [Series("networks", points, joined=False)], "measured, ms", "estimate, ms",
                 guides=[Guide((low, low), (high, high), "")]),
        folded("Every network", table(["network", "estimate ms", "measured ms", "error"], rows)),
    )  # fmt: skip


KIND = Kind("Estimates beside measurements", _recognises, _read, _draw)
