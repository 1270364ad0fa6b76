"""Rows of a blocked map between two sizes: blended from two, then sampled."""

from collections.abc import Callable

from deploy import ir
from deploy.bilinear import AxisTable
from deploy.cpu.rows.maps import Map


class BlendedRow:
    """The row of a map x that belongs to an output row, in memory of the thread."""

    def __init__(self, x: Map, rows: AxisTable) -> None:
        self.isa, self._x, self._rows, self._lanes = x.isa, x, rows, x.isa.lanes
        self._buffer = ir.scratch(x.blocks * x.width * self._lanes)

    def blend(self, y: ir.Expr) -> None:
        """Become the row of output row y."""
        y0, y1, w0, w1 = self._rows.at(y, self._lanes)
        with ir.serial(0, self._x.blocks) as block, ir.serial(0, self._x.width) as column:
            upper, lower = (self._x.vector(block, y, column) for y in (y0, y1))
            value = self.isa.element.mix(upper, w0, lower, w1, self._lanes)
            ir.store(self._buffer, value, self._at(block, column), lanes=self._lanes)

    def _at(self, block: ir.Expr, column: ir.Expr) -> ir.Expr:
        return (block * self._x.width + column) * self._lanes

    def value(self, block: ir.Expr, column: ir.Expr, lane: ir.Expr) -> ir.Expr:
        """One float."""
        return self._buffer[self._at(block, column) + lane]

    def along(self, block: ir.Expr, column: ir.Expr, lane: ir.Expr) -> Callable[[int], ir.Expr]:
        """The floats of one channel from a column on, by how many columns further."""
        first = ir.bind(self._at(block, column) + lane)
        return lambda further: self._buffer[first + further * self._lanes]

    def sample(self, block: ir.Expr, sample: tuple[ir.Expr, ir.Expr, ir.Expr, ir.Expr]) -> ir.Expr:
        """A vector between two columns; `sample` is what AxisTable.at gave."""
        x0, x1, w0, w1 = sample
        left = ir.load(self._buffer, self._at(block, x0), lanes=self._lanes)
        right = ir.load(self._buffer, self._at(block, x1), lanes=self._lanes)
        return self.isa.element.mix(left, w0, right, w1, self._lanes)
