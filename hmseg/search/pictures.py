"""Pictures of a search: the network found, the probabilities over time, the cost over time."""

from collections.abc import Callable, Sequence
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hmseg.genotype import RATIO_TENTHS
from hmseg.search.architecture import Path
from hmseg.search.budget import Budget, show_cost
from hmseg.search.space import CANDIDATES, LAYERS
from lut.estimate import Estimate
from lut.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMES = [str(op) if op else "skip" for op in CANDIDATES]
ROW_NAMES = [
    *(f"{group.name}.{layer}" for group, layer in LAYERS), "medium ratio", "low ratio",
]  # fmt: skip
_COLOURS = {1: "#9ecae1", 3: "#4292c6", 6: "#084594"}  # by expansion


def draw_network(
    path: Path, probabilities: NDArray[np.float64], estimate: Estimate, file: FilePath
) -> None:
    """The network found, layer by layer: height is the kernel, colour the expansion, and below
    each its probability (24, 10)."""
    figure = _figure(13, 4.2)
    axes = figure.subplots()
    position, ticks, labels = 0.0, [], []
    for row, ((group, layer), op) in enumerate(zip(LAYERS, path.ops, strict=True)):
        if layer == 0 and row:
            position += 0.6
            if group.name in ("s4a", "s5a"):
                at = -2 if group.name == "s4a" else -1
                tenths = RATIO_TENTHS[path.choices[at]]
                share = probabilities[at, path.choices[at]]
                axes.text(position, 3.5, f"resize\nx {tenths / 10:g}\n{share:.0%}", ha="center",
                          va="center", fontsize=9)  # fmt: skip
                position += 1.2
        if op is None:
            axes.bar(position, 0.25, 0.9, color="0.8")
            height, text = 0.25, "skip"
        else:
            axes.bar(position, op.kernel, 0.9, color=_COLOURS[op.expansion])
            height, text = op.kernel, str(op)
        share = probabilities[row, path.choices[row]]
        axes.text(position, height + 0.15, f"{text}\n{share:.0%}", ha="center", fontsize=8)
        ticks.append(position)
        labels.append(f"{group.name}.{layer}")
        position += 1
    axes.set_xticks(ticks, labels, rotation=60, fontsize=8)
    axes.set_yticks([3, 5, 7])
    axes.set_ylim(0, 8.6)
    axes.set_ylabel("kernel")
    for expansion, colour in _COLOURS.items():
        axes.bar(0, 0, color=colour, label=f"expansion {expansion}")
    axes.legend(loc="upper center", ncols=3, fontsize=8, frameon=False)
    value, upper = (show_cost(v, estimate.unit) for v in (estimate.value, estimate.upper))
    axes.set_title(f"estimate {value}, upper bound {upper}; % = probability of the choice")
    _save(figure, file)


def draw_probabilities(records: Sequence[dict[str, Any]], path: Path, file: FilePath) -> None:
    """Each row's probabilities over the steps; the chosen candidate is thick."""
    from matplotlib.lines import Line2D

    figure = _figure(14, 11)
    places = figure.subplots(4, 6, sharex=True, sharey=True).flat
    steps = [record["step"] for record in records]
    tables = np.array([record["probabilities"] for record in records])
    for row, axes in enumerate(places):
        ratio = row >= len(LAYERS)
        names = [f"{tenths / 10:g}" for tenths in RATIO_TENTHS] if ratio else NAMES
        for index, name in enumerate(names):
            if tables[:, row, index].any():
                width = 2.5 if path.choices[row] == index else 0.8
                values = tables[:, row, index]
                axes.plot(steps, values, color=_colour(index), lw=width, label=name)
        axes.set_title(ROW_NAMES[row], fontsize=9)
        axes.set_ylim(0, 1)
        axes.grid(alpha=0.3)
        if ratio:
            axes.legend(fontsize=7)
        if row >= 18:
            axes.set_xlabel("step")
    handles = [Line2D([], [], color=_colour(index), label=name) for index, name in enumerate(NAMES)]
    figure.legend(handles=handles, loc="outside lower center", ncols=10, fontsize=9)
    figure.supylabel("probability")
    _save(figure, file)


def _colour(candidate: int) -> str:
    return f"C{candidate}" if CANDIDATES[candidate] else "black"


def draw_cost(records: Sequence[dict[str, Any]], budget: Budget, file: FilePath) -> None:
    """E(A), the upper bounds of sampled networks and of the most probable one, and the budget, over
    the steps; below them both losses."""
    figure = _figure(8, 7)
    cost, loss = figure.subplots(2, sharex=True)
    scale, unit = {"us": (1e3, "ms"), "MACs": (1e9, "GMACs"), "parameters": (1e6, "M")}[budget.unit]
    moving = [record for record in records if "architecture" in record]
    for record in moving:
        values = record["architecture"]["sampled_upper"]
        steps = np.linspace(record["step"] - len(values) + 1, record["step"], len(values))
        cost.plot(steps, np.array(values) / scale, ".", color="0.75", ms=2)
    _line(cost, moving, lambda r: r["architecture"]["expected"] / scale, "E(A)", "C0")
    _line(cost, records, lambda r: r["most_probable"]["upper"] / scale,
          "most probable network, upper bound", "C1")  # fmt: skip
    cost.axhline(budget.limit / scale, color="C3", ls="--", label="budget")
    cost.plot([], [], ".", color="0.75", label="sampled networks, upper bound")
    cost.set_ylabel(f"estimate in {unit}")
    cost.legend(fontsize=8)
    _line(loss, records, lambda r: r["loss"], "weights' half", "C0")
    _line(loss, moving, lambda r: r["architecture"]["loss"], "architecture's half", "C1")
    loss.set_ylabel("loss (Eq. 1)")
    loss.set_xlabel("step")
    loss.legend(fontsize=8)
    for axes in (cost, loss):
        axes.grid(alpha=0.3)
    _save(figure, file)


def _line(
    axes: "Axes",
    records: Sequence[dict[str, Any]],
    value: Callable[[dict[str, Any]], float],
    label: str,
    colour: str,
) -> None:
    axes.plot([r["step"] for r in records], [value(r) for r in records], color=colour, label=label)


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure  # heavy, and not needed to search

    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: "Figure", file: FilePath) -> None:
    with atomic_path(file) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
