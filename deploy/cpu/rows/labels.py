"""Labels of a row: the class with the best score at every pixel.

Equal scores give the lowest class, and the first NaN wins, as in numpy and torch.
"""

from deploy import ir
from deploy.cpu.rows.bilinear import BlendedRow
from deploy.cpu.rows.intervals import Intervals, Pixels
from deploy.cpu.tiles import reduce_channels


class LabelRow:
    """The labels of one blended row of scores, in memory of the thread."""

    def __init__(self, intervals: Intervals, row: BlendedRow, classes: int) -> None:
        self._intervals, self._row, self._classes = intervals, row, classes
        self._line = ir.scratch(intervals.columns.out + intervals.lanes, "uint8")

    def compare(self, *, nan_safe: bool) -> None:
        """All pixels by their scores; `nan_safe`: where one may be NaN."""
        self._intervals.over_pixels(lambda pixels: self._compare(pixels, nan_safe))

    def copy(self, y: ir.Buffer, row: ir.Expr) -> None:
        """Write them to a row of y (1, height, width)."""

        def part(begin: ir.Expr, size: int) -> None:
            ir.store(y, ir.load(self._line, begin, lanes=size), 0, row, begin, lanes=size)

        ir.over_tiles(self._intervals.columns.out, 64, part)

    def _compare(self, pixels: Pixels, nan_safe: bool) -> None:
        intervals, lanes, isa = self._intervals, self._intervals.lanes, self._row.isa
        fraction = intervals.fraction(pixels)
        best, label = ir.Registers(1, lanes), ir.Registers(1, lanes, "int32")
        best[0] = intervals.value(self._row, 0, 0, pixels, fraction)
        label[0] = ir.const_int(0, lanes)

        def look(block: ir.Expr, lane: ir.Expr) -> None:
            value = ir.bind(intervals.value(self._row, block, lane, pixels, fraction))
            wins = value > best[0]
            if nan_safe:
                first = ir.both(ir.is_nan(value), ir.negate(ir.is_nan(best[0])))
                wins = ir.either(wins, first)
            number = ir.splat(ir.cast(block * isa.lanes + lane, "int32"), lanes)
            label[0] = ir.select(wins, number, label[0])
            best[0] = ir.select(wins, value, best[0])

        reduce_channels(isa, self._classes, look)
        self._store(pixels, ir.cast(label[0], "uint8", lanes))

    def _store(self, pixels: Pixels, labels: ir.Expr) -> None:
        ir.store(self._line, labels, pixels.begin, lanes=self._intervals.lanes)
