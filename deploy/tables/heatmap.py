"""A latency table as a picture: operator x layer."""

from pathlib import Path

import numpy as np

from hmseg.genotype import Op
from hmseg.operators import OPERATORS, Space
from lut.errors import UserError
from lut.files import atomic_path
from lut.ops import InvertedResidual, Operation
from lut.table import Table


def heatmap_columns(space: Space) -> dict[str, list[Operation]]:
    """For each distinct layer and input size its nine entries, in the order of the operators."""
    columns: dict[str, dict[Operation, None]] = {}
    for group, layer, op, medium, low in space.choices():
        key = space.layer(group, layer, op, medium, low)[-1]
        # s1's kernels without an expansion start from the image, at twice the size: one column.
        size = " (e1: stem too)"
        if group.name != "s1" and isinstance(key, InvertedResidual):
            size = f" {key.height}x{key.width}"
        name = f"{group.name}.{'0' if layer == 0 else '1+'}{size}"
        columns.setdefault(name, {})[key] = None
    return {name: list(keys) for name, keys in columns.items()}


def operator_in_words(op: Op) -> str:
    """A row of the picture: ``expansion 3, 5x5``."""
    return f"expansion {op.expansion}, {op.kernel}x{op.kernel}"


def draw_heatmap(table: Table, space: Space, path: Path) -> None:
    """Write a PNG, microseconds of a call; what has not been measured stays white.

    Raises UserError for a table without entries.
    """
    if not table.entries:
        raise UserError(f"{table.name} has no entries yet: there is nothing to draw")
    from matplotlib.figure import Figure  # heavy, and not needed for the numbers

    columns, entries = heatmap_columns(space), table.entries
    values = np.array(
        [
            [entries[key].median_us if key in entries else np.nan for key in keys]
            for keys in columns.values()
        ]
    ).T
    figure = Figure(figsize=(2 + 0.42 * len(columns), 5), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(values, norm="log", cmap="viridis", aspect="auto")
    axes.set_yticks(range(len(OPERATORS)), [operator_in_words(op) for op in OPERATORS])
    axes.set_xticks(range(len(columns)), list(columns), rotation=90, fontsize=7)
    colours = image.to_rgba(values)
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            ink = _ink(*colours[row, column, :3])
            axes.text(column, row, f"{value:.0f}", ha="center", va="center", fontsize=7, color=ink)
    identity = table.identity
    axes.set_title(
        f"microseconds of a call inside networks: {table.cpus}, {identity.threads} "
        f"threads, {identity.resolution}, width {identity.width:g}",
        fontsize=9,
    )
    figure.colorbar(image, ax=axes, label="microseconds")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def _ink(red: float, green: float, blue: float) -> str:
    """Black or white, whichever is easier to read on a colour of sRGB, by the contrast of WCAG 2:
    white is as far above a relative luminance of 0.18 as black is below it."""
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (red, green, blue)
    ]
    return "w" if 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] < 0.18 else "k"
