"""The pictures, PNG: bars, stacked bars, lines."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lut.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axis import Axis
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
        axes.bar_label(drawn, [_text(value) for value in found], padding=2, fontsize=7)
    axes.set_yticks([row + 0.4 - height / 2 for row in range(len(labels))], list(labels))
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.margins(x=0.15, y=0.01)
    _plain(axes.xaxis)
    axes.set_xlabel(unit)
    axes.set_title(title, fontsize=10)
    figure.legend(loc="outside lower right", fontsize=8, ncols=len(shown))
    _save(figure, path)


def stacks(
    path: Path, title: str, labels: Sequence[str],
    panels: Mapping[str, Sequence[Sequence[float]]], parts: Sequence[str],
) -> None:  # fmt: skip
    """For each panel, by its unit, a horizontal bar for each label, made of `parts`; with its
    length, where bars are not all as long."""
    figure = _figure(4.2 + 4.2 * len(panels), 1.5 + 0.32 * len(labels))
    found = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (unit, rows) in zip(found, panels.items(), strict=True):
        left = [0.0] * len(labels)
        for number, part in enumerate(parts):
            widths = [row[number] for row in rows]
            label = part if axes is found[0] else None
            axes.barh(range(len(labels)), widths, 0.7, left=left, label=label)
            left = [a + b for a, b in zip(left, widths, strict=True)]
        if max(left) > 1.01 * min(left):
            for row, total in enumerate(left):
                axes.text(total, row, f" {_text(total)}", va="center", fontsize=7)
            axes.margins(x=0.12)
        else:
            axes.margins(x=0)
        axes.set_xlabel(unit)
    found[0].set_yticks(range(len(labels)), list(labels))
    found[0].invert_yaxis()
    figure.legend(loc="outside lower center", fontsize=8, ncols=len(parts))
    figure.suptitle(title, fontsize=10)
    _save(figure, path)


def lines(
    path: Path, title: str, series: Mapping[tuple[str, str], Sequence[tuple[float, float]]],
    x: str, y: str,
) -> None:  # fmt: skip
    """A line through the points of each series, a network and a side, on logarithmic axes: networks
    have colours, sides kinds of lines."""
    from matplotlib.lines import Line2D

    figure = _figure(10, 5.5)
    axes = figure.subplots()
    colours = {network: f"C{n % 10}" for n, network in enumerate(_unique(series, 0))}
    styles = {side: _STYLES[n % len(_STYLES)] for n, side in enumerate(_unique(series, 1))}
    for (network, side), points in series.items():
        axes.plot(
            *zip(*points, strict=True), marker="o", markersize=4, color=colours[network],
            linestyle=styles[side],
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        _plain(axis)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.set_title(title, fontsize=10)
    named = [Line2D([], [], color=colour, label=name) for name, colour in colours.items()]
    named += [Line2D([], [], color="black", ls=ls, label=side) for side, ls in styles.items()]
    figure.legend(handles=named, loc="outside right upper", fontsize=8)
    _save(figure, path)


def _unique(series: Mapping[tuple[str, str], object], place: int) -> list[str]:
    return list(dict.fromkeys(key[place] for key in series))


def _text(value: float) -> str:
    """Three digits, and no exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _plain(axis: "Axis") -> None:
    """Numbers on a logarithmic axis as people write them."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(FuncFormatter(lambda *_: ""))


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure  # heavy, and not needed for the numbers

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: "Figure", path: Path) -> None:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=_DPI)
