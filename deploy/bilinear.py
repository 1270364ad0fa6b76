"""Bilinear coordinates (half-pixel centres, align_corners=False) as tables.

Both sizes are explicit. A table is passed to the kernel as a constant, so that any ratio, up or
down, costs the same.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deploy import ir
from deploy.coordinates import half_pixel
from lut.ops import Labels, LocalGlobal, Logits, Pointwise, Resize


@dataclass(frozen=True)
class Axis:
    """Resampling of one axis from `size` to `out` samples."""

    size: int
    out: int

    def table(self) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Per output sample: the two sources (out, 2) and their weights (out, 2)."""
        source = np.maximum(half_pixel(self.size, self.out), 0)
        low = np.minimum(np.floor(source).astype(np.int32), self.size - 1)
        high = np.minimum(low + 1, self.size - 1)
        fraction = (source - low).astype(np.float32)
        index = np.stack([low, high], 1).astype(np.int32)
        return index, np.stack([1 - fraction, fraction], 1).astype(np.float32)

    def intervals(self) -> NDArray[np.int32]:
        """(size + 1,): output samples [t[j], t[j+1]) lie between sources j and j+1."""
        low = self.table()[0][:, 0]
        return np.searchsorted(low, np.arange(self.size + 1)).astype(np.int32)


def axes_of(op: Resize | Labels | Logits | Pointwise | LocalGlobal) -> tuple[Axis, Axis]:
    """Rows and columns of an operation's resize, or of the upsampling of its low map."""
    if isinstance(op, Pointwise | LocalGlobal):
        return Axis(op.low_height, op.height), Axis(op.low_width, op.width)
    return Axis(op.height, op.out_height), Axis(op.width, op.out_width)


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
