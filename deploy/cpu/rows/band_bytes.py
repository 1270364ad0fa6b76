"""The input around a block of outputs in bytes, with the zero point where it ends."""

from typing import Protocol

from deploy import ir
from deploy.cpu.rows.band import inside
from deploy.cpu.rows.maps import Map
from lut.ops import Pair

PIXELS = 4  # copied at once


class ByteBand(Protocol):
    """Rows and columns of a map."""

    def fill(self, row: ir.Expr, column: ir.Expr, first: ir.Expr = 0) -> None:
        """Become the rows and columns from these of the map on, which may lie outside it, of
        channel blocks from `first` on."""

    def operand(self, block: ir.Expr, row: ir.Expr, column: ir.Expr, lane: ir.Expr) -> ir.Expr:
        """What `Element.dot` takes of a pixel: four channels of a block from a lane on."""


class CopiedBand:
    """A copy (blocks, rows, columns, c) in memory of the thread."""

    def __init__(self, x: Map, size: Pair, blocks: int, zero: ir.Expr) -> None:
        self._x, (self._rows, self._columns), self._blocks = x, size, blocks
        self._zero = ir.bind(ir.splat(zero, x.isa.lanes))
        self._buffer = ir.scratch(blocks * self._rows * self._columns * x.isa.lanes, "uint8")

    def _at(self, block: ir.Expr, row: ir.Expr, column: ir.Expr) -> ir.Expr:
        return ((block * self._rows + row) * self._columns + column) * self._x.isa.lanes

    def fill(self, row: ir.Expr, column: ir.Expr, first: ir.Expr = 0) -> None:
        """As `ByteBand.fill`."""
        x, c = self._x, self._x.isa.lanes
        with ir.serial(0, self._blocks) as block, ir.serial(0, self._rows) as r:
            y = ir.bind(row + r)
            low, high = inside(y, column, (x.height, x.width), self._columns)
            base = ir.bind(self._at(block, r, 0))
            for ends in ((0, low), (high, self._columns)):
                with ir.loop(*ends) as i:
                    ir.store(self._buffer, self._zero, base + i * c, lanes=c)

            def copy(i: ir.Expr, count: int, base: ir.Expr = base, y: ir.Expr = y) -> None:
                value = x.stored(first + block, y, column + i, count)
                ir.store(self._buffer, value, base + i * c, lanes=count * c)

            whole = ir.bind(ir.maximum(high - low, 0) // PIXELS)
            with ir.loop(0, whole) as i:
                copy(low + i * PIXELS, PIXELS)
            with ir.loop(low + whole * PIXELS, high) as i:
                copy(i, 1)

    def operand(self, block: ir.Expr, row: ir.Expr, column: ir.Expr, lane: ir.Expr) -> ir.Expr:
        """As `ByteBand.operand`."""
        at = self._at(block, row, column) + lane
        return self._x.isa.element.operand(self._buffer, at)


class BandInPlace:
    """The map itself, where no tap lies outside."""

    def __init__(self, x: Map) -> None:
        self._x = x
        self._row: ir.Expr = 0
        self._column: ir.Expr = 0
        self._first: ir.Expr = 0

    def fill(self, row: ir.Expr, column: ir.Expr, first: ir.Expr = 0) -> None:
        """As `ByteBand.fill`."""
        self._row, self._column, self._first = row, column, first

    def operand(self, block: ir.Expr, row: ir.Expr, column: ir.Expr, lane: ir.Expr) -> ir.Expr:
        """As `ByteBand.operand`."""
        of = self._x.row(self._row + row)
        return of.operand(self._first + block, self._column + column, lane)
