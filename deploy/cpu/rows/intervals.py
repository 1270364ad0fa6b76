"""A blended row of class scores at the columns of an image, for any ratio of the two.

Between two neighbouring source columns every class is a straight line, so the output pixels of one
such interval share two broadcast scores. An interval is processed in whole vectors: what sticks out
is written over by the next one, and behind the last a row needs room for one vector.
"""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy import ir
from deploy.bilinear import Axis
from deploy.cpu.isa import Isa
from deploy.cpu.rows.bilinear import BlendedRow


@dataclass(frozen=True)
class Pixels:
    """A vector of output pixels from `begin` on, between the source columns left and right."""

    left: ir.Expr
    right: ir.Expr
    begin: ir.Expr


def best_lanes(isa: Isa, columns: Axis) -> int:
    """Pixels per vector: half vectors where an interval has no more pixels than that."""
    half = isa.lanes // 2
    return half if half >= 8 and -(-columns.out // columns.size) <= half else isa.lanes


def pack_intervals(isa: Isa, columns: Axis) -> list[NDArray[Any]]:
    """The constants of `Intervals`: where each begins, and the fraction of every output column."""
    fraction = np.zeros(columns.out + isa.lanes, np.float32)  # read in whole vectors
    fraction[: columns.out] = columns.table()[1][:, 1]
    return [columns.intervals(), fraction]


class Intervals:
    """The columns in vectors of `lanes` pixels; two parameters, `intervals` and `fraction`."""

    def __init__(self, isa: Isa, f: ir.PrimFuncBuilder, columns: Axis, lanes: int) -> None:
        self.columns, self.lanes = columns, lanes
        self._starts = f.param("intervals", (columns.size + 1,), "int32")
        self._fraction = f.param("fraction", (columns.out + isa.lanes,))

    def in_vectors(self, lanes: int) -> "Intervals":
        """The same columns in vectors of other, at most the registers', lanes."""
        other = copy(self)
        other.lanes = lanes
        return other

    def over_pixels(self, body: Callable[[Pixels], None]) -> None:
        """Every output column, interval by interval."""
        with ir.serial(0, self.columns.size) as left:
            right = ir.bind(ir.minimum(left + 1, self.columns.size - 1))
            start, stop = ir.bind(self._starts[left]), ir.bind(self._starts[left + 1])
            with ir.loop(0, (stop - start + self.lanes - 1) // self.lanes) as part:
                body(Pixels(left, right, ir.bind(start + part * self.lanes)))

    def fraction(self, pixels: Pixels) -> ir.Expr:
        """How far the pixels lie between left and right."""
        return ir.bind(ir.load(self._fraction, pixels.begin, lanes=self.lanes))

    def value(
        self, row: BlendedRow, block: ir.Expr, lane: ir.Expr, pixels: Pixels, fraction: ir.Expr
    ) -> ir.Expr:
        """The scores of one class at the pixels."""
        a = ir.splat(row.value(block, pixels.left, lane), self.lanes)
        b = ir.splat(row.value(block, pixels.right, lane), self.lanes)
        return a * (ir.const(1, self.lanes) - fraction) + b * fraction
