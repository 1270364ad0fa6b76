"""Logits of a row, a plane for each class.

Where few source columns lie under a whole vector of output pixels, it is the weighted sum of them;
else each pixel comes from its two neighbours.
"""

import numpy as np
from numpy.typing import NDArray

from deploy import ir
from deploy.bilinear import Axis
from deploy.cpu.isa import Isa
from deploy.cpu.rows.bilinear import BlendedRow
from deploy.cpu.rows.intervals import Intervals, Pixels
from deploy.cpu.tiles import reduce_channels

MOST_TAPS = 4  # source columns of a vector; the other way loads two a vector


def weighted_sums(isa: Isa, columns: Axis) -> tuple[NDArray[np.int32], NDArray[np.float32]] | None:
    """For whole vectors of output pixels: the first source column of each, and the weights
    (vectors, taps, lanes) of the columns from there on. None where a vector would see more than
    MOST_TAPS of them, or the width is no whole number of vectors."""
    c = isa.lanes
    if columns.out % c:
        return None
    index, weight = columns.table()
    low, high = (index[:, i].reshape(-1, c) for i in range(2))
    taps = int((high.max(1) - low.min(1)).max()) + 1
    if taps > min(MOST_TAPS, columns.size):
        return None
    first = np.minimum(low.min(1), columns.size - taps).astype(np.int32)
    table = np.zeros((len(first), taps, c), np.float32)
    vector, lane = np.indices(low.shape)
    for source, share in ((low, weight[:, 0]), (high, weight[:, 1])):
        np.add.at(table, (vector, source - first[:, None], lane), share.reshape(-1, c))
    return first, table


class Sums:
    """Two parameters: `starts`, the first source column of every vector, and `taps`."""

    def __init__(
        self, f: ir.PrimFuncBuilder, first: NDArray[np.int32], table: NDArray[np.float32]
    ) -> None:
        self.vectors, self.taps, self.lanes = table.shape
        self.starts = f.param("starts", first.shape, "int32")
        self.weights = f.param("taps", table.shape)


class LogitRow:
    """From one blended row of scores to a row of y (1, classes, height, width), class by class."""

    def __init__(self, intervals: Intervals, blended: BlendedRow, y: ir.Buffer) -> None:
        self._intervals, self._row, self._y = intervals, blended, y
        self._classes = int(y.shape[1])
        self._line = ir.scratch(intervals.columns.out + intervals.lanes)

    def add_up(self, sums: Sums, row: ir.Expr) -> None:
        """As `interpolate`, for finite scores: a weighted sum of few columns, in whole vectors."""

        def one_class(block: ir.Expr, lane: ir.Expr) -> None:
            with ir.serial(0, sums.vectors) as i:
                score = self._row.along(block, sums.starts[i], lane)
                total = None
                for tap in range(sums.taps):
                    source = ir.splat(score(tap), sums.lanes)
                    term = source * ir.load(sums.weights, i, tap, 0, lanes=sums.lanes)
                    total = term if total is None else total + term
                self._store(total, block, lane, row, i * sums.lanes, sums.lanes)

        reduce_channels(self._row.isa, self._classes, one_class)

    def interpolate(self, row: ir.Expr) -> None:
        """Each pixel from its two neighbours."""
        intervals, line = self._intervals, self._line

        def one_class(block: ir.Expr, lane: ir.Expr) -> None:
            def some(pixels: Pixels) -> None:
                fraction = intervals.fraction(pixels)
                value = intervals.value(self._row, block, lane, pixels, fraction)
                ir.store(line, value, pixels.begin, lanes=intervals.lanes)

            def copy(begin: ir.Expr, size: int) -> None:
                self._store(ir.load(line, begin, lanes=size), block, lane, row, begin, size)

            intervals.over_pixels(some)
            ir.over_tiles(intervals.columns.out, self._row.isa.lanes, copy)

        reduce_channels(self._row.isa, self._classes, one_class)

    def _store(
        self,
        vector: ir.Expr,
        block: ir.Expr,
        lane: ir.Expr,
        row: ir.Expr,
        begin: ir.Expr,
        size: int,
    ) -> None:
        plane = block * self._row.isa.lanes + lane
        ir.store(self._y, vector, 0, plane, row, begin, lanes=size)
