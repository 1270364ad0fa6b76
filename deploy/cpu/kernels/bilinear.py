"""Bilinear coordinates (half-pixel centres, align_corners=False) as tables, and row blending.

Both sizes are explicit. A table is computed in float64 and passed to the kernel as a constant, so
that any ratio, up or down, costs the same.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deploy import ir
from deploy.cpu.isa import Isa


@dataclass(frozen=True)
class Axis:
    """Resampling of one axis from `size` to `out` samples."""

    size: int
    out: int

    def table(self) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Per output sample: the two sources (out, 2) and their weights (out, 2)."""
        source = np.maximum((np.arange(self.out) + 0.5) * (self.size / self.out) - 0.5, 0.0)
        low = np.minimum(np.floor(source).astype(np.int32), self.size - 1)
        high = np.minimum(low + 1, self.size - 1)
        fraction = (source - low).astype(np.float32)
        index = np.stack([low, high], 1).astype(np.int32)
        return index, np.stack([1 - fraction, fraction], 1).astype(np.float32)

    def intervals(self) -> NDArray[np.int32]:
        """(size + 1,): output samples [t[j], t[j+1]) lie between sources j and j+1."""
        low = self.table()[0][:, 0]
        return np.searchsorted(low, np.arange(self.size + 1)).astype(np.int32)


class AxisTable:
    """The two parameters of one axis in a kernel, `NAME_index` and `NAME_weight`."""

    def __init__(self, f: ir.PrimFuncBuilder, name: str, axis: Axis) -> None:
        self.index = f.param(f"{name}_index", (axis.out, 2), "int32")
        self.weight = f.param(f"{name}_weight", (axis.out, 2))

    def at(self, i: ir.Expr, lanes: int) -> tuple[ir.Expr, ir.Expr, ir.Expr, ir.Expr]:
        """(first source, second source, first weight, second weight), weights in every lane."""
        return (
            ir.bind(self.index[i, 0]),
            ir.bind(self.index[i, 1]),
            ir.bind(ir.splat(self.weight[i, 0], lanes)),
            ir.bind(ir.splat(self.weight[i, 1], lanes)),
        )


def blend_rows(
    isa: Isa, x: ir.Buffer, blocks: int, width: int, rows: AxisTable, y: ir.Expr, out: ir.Buffer
) -> None:
    """The row of x (1, blocks, H, width, c) that belongs to output row y, into `out`
    (blocks * width * c floats)."""
    c = isa.lanes
    y0, y1, w0, w1 = rows.at(y, c)
    with ir.serial(0, blocks) as b, ir.serial(0, width) as i:
        value = ir.load(x, 0, b, y0, i, 0, lanes=c) * w0 + ir.load(x, 0, b, y1, i, 0, lanes=c) * w1
        ir.store(out, value, (b * width + i) * c, lanes=c)


def sample_row(
    blended: ir.Buffer,
    offset: ir.Expr,
    sample: tuple[ir.Expr, ir.Expr, ir.Expr, ir.Expr],
    lanes: int,
) -> ir.Expr:
    """A vector of a blended row: `offset` in pixels, `sample` what AxisTable.at gave."""
    x0, x1, w0, w1 = sample
    left = ir.load(blended, (offset + x0) * lanes, lanes=lanes)
    right = ir.load(blended, (offset + x1) * lanes, lanes=lanes)
    return left * w0 + right * w1
