"""The pictures, PNG: bars, stacked bars, lines."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lut.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 110
_STYLES = ("-", "--", ":", "-.")
Values = Mapping[str, Sequence[float | None]]


def bars(path: Path, title: str, labels: Sequence[str], series: Values, unit: str) -> None:
    """A group of horizontal bars for each label, a bar for each series that has a value there; on a
    logarithmic axis, as speeds differ by factors."""
    shown = {name: values for name, values in series.items() if any(values)}
    figure = _figure(9, 1.5 + 0.16 * len(labels) * (len(shown) + 1))
    axes = figure.subplots()
    height = 0.8 / max(1, len(shown))
    for number, (name, values) in enumerate(shown.items()):
        places = [row + number * height for row, value in enumerate(values) if value]
        found = [value for value in values if value]
        drawn = axes.barh(places, found, height, label=name)
        axes.bar_label(drawn, [f"{value:.3g}" for value in found], padding=2, fontsize=7)
    axes.set_yticks([row + 0.4 - height / 2 for row in range(len(labels))], list(labels))
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.margins(x=0.15)
    axes.set_xlabel(unit)
    axes.set_title(title, fontsize=10)
    axes.legend(fontsize=8)
    _save(figure, path)


def stacks(
    path: Path, title: str, labels: Sequence[str],
    panels: Mapping[str, Sequence[Sequence[float]]], parts: Sequence[str],
) -> None:  # fmt: skip
    """For each panel, by its unit, a horizontal bar for each label, made of `parts`."""
    figure = _figure(4.2 + 4.2 * len(panels), 1.5 + 0.32 * len(labels))
    found = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (unit, rows) in zip(found, panels.items(), strict=True):
        left = [0.0] * len(labels)
        for number, part in enumerate(parts):
            widths = [row[number] for row in rows]
            axes.barh(range(len(labels)), widths, 0.7, left=left, label=part)
            left = [a + b for a, b in zip(left, widths, strict=True)]
        for row, total in enumerate(left):
            axes.text(total, row, f" {total:.3g}", va="center", fontsize=7)
        axes.margins(x=0.12)
        axes.set_xlabel(unit)
    found[0].set_yticks(range(len(labels)), list(labels))
    found[0].invert_yaxis()
    found[-1].legend(fontsize=8)
    figure.suptitle(title, fontsize=10)
    _save(figure, path)


def lines(
    path: Path, title: str, series: Mapping[tuple[str, str], Sequence[tuple[float, float]]],
    x: str, y: str,
) -> None:  # fmt: skip
    """A line through the points of each series, a network and a side, on logarithmic axes: networks
    have colours, sides kinds of lines."""
    figure = _figure(9, 5.5)
    axes = figure.subplots()
    networks = list(dict.fromkeys(network for network, _ in series))
    sides = list(dict.fromkeys(side for _, side in series))
    for (network, side), points in series.items():
        axes.plot(
            *zip(*points, strict=True), marker="o", markersize=4, label=f"{network}, {side}",
            color=f"C{networks.index(network) % 10}",
            linestyle=_STYLES[sides.index(side) % len(_STYLES)],
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.set_title(title, fontsize=10)
    axes.legend(fontsize=7, ncols=len(sides))
    _save(figure, path)


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure  # heavy, and not needed for the numbers

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: "Figure", path: Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=_DPI)
