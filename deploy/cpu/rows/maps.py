"""A map in memory as source and sink of rows."""

from collections.abc import Sequence
from copy import copy

from deploy import ir
from deploy.cpu.isa import Isa
from deploy.cpu.layout import activation_shape
from deploy.cpu.rows.codes import Code
from deploy.cpu.rows.cuts import Span
from lut.ops import Conv, InvertedResidual, Pointwise

LINE_BYTES = 64
# What is read soon is asked for so far ahead, a line or two in each step of a loop: of many at once
# a core drops those beyond what it can wait for.
_AHEAD_BYTES = 512


def pixels_ahead(isa: Isa) -> int:
    """Pixels of a block between one that is read and one that is asked for."""
    return _AHEAD_BYTES // (isa.element.bytes * isa.lanes)


class Map:
    """A parameter of the kernel: (1, C/c, height, width, c).

    Of an 8-bit map `reads` says how quanta become the numbers that `vector` gives; without, these
    are the quanta. What is stored is quanta.
    """

    def __init__(
        self, isa: Isa, f: ir.PrimFuncBuilder, name: str, channels: int, height: int, width: int
    ) -> None:
        self.isa, self.blocks, self.height, self.width = isa, isa.blocks(channels), height, width
        shape = activation_shape(isa, channels, height, width)
        self.buffer = f.param(name, shape, isa.element.stored)
        self.reads: Code | None = None

    def as_row(self) -> "Map":
        """The same memory as one row of all pixels."""
        row = copy(self)
        row.height, row.width = 1, self.height * self.width
        row.buffer = ir.view(self.buffer, (1, self.blocks, 1, row.width, self.isa.lanes))
        return row

    def start(self, first: ir.Expr, span: Span) -> "Map":
        """As `Source.start`."""
        del first, span
        return self

    def advance(self, number: ir.Expr) -> None:
        """As `SourceRows.advance`: the whole map is there."""

    def row(self, number: ir.Expr) -> "MapRow":
        """One of its rows."""
        return MapRow(self, number)

    def vector(self, block: ir.Expr, row: ir.Expr, column: ir.Expr) -> ir.Expr:
        """A channel block of one pixel."""
        return self.lanes(block, row, column, 0, self.isa.lanes)

    def stored(self, block: ir.Expr, row: ir.Expr, column: ir.Expr, pixels: int = 1) -> ir.Expr:
        """A channel block of neighbouring pixels, as they are in memory, in one vector."""
        lanes = self.isa.lanes
        flat = ir.view(self.buffer, (self.blocks * self.height * self.width * lanes,))
        at = ((block * self.height + row) * self.width + column) * lanes
        return ir.load(flat, at, lanes=pixels * lanes)

    def lanes(
        self, block: ir.Expr, row: ir.Expr, column: ir.Expr, first: ir.Expr, count: int
    ) -> ir.Expr:
        """`count` channels of a block of one pixel, from lane `first` on; one: a float."""
        value = self.isa.element.load(self.buffer, 0, block, row, column, first, lanes=count)
        return value if self.reads is None else self.reads.apply(value, count)

    def store(
        self, block: ir.Expr, row: ir.Expr, column: ir.Expr, vector: ir.Expr, first: ir.Expr = 0,
        count: int | None = None,
    ) -> None:  # fmt: skip
        """Write a channel block of one pixel, or `count` channels from lane `first` on."""
        lanes = self.isa.lanes if count is None else count
        at = (0, block, row, column, first)
        self.isa.element.store(self.buffer, vector, *at, lanes=lanes)

    def store_run(
        self, block: ir.Expr, row: ir.Expr, column: ir.Expr, vectors: Sequence[ir.Expr]
    ) -> None:
        """Write a channel block of neighbouring pixels, from a column on."""
        lanes = self.isa.lanes
        flat = ir.view(self.buffer, (self.blocks * self.height * self.width * lanes,))
        at = ((block * self.height + row) * self.width + column) * lanes
        self.isa.element.store_run(flat, vectors, at, lanes=lanes)

    def prefetch(self, block: ir.Expr, row: ir.Expr, column: ir.Expr, pixels: int) -> None:
        """Ask for pixels of one block; behind the row's end these are the next row's."""
        for p in range(0, pixels, max(1, LINE_BYTES // (self.isa.element.bytes * self.isa.lanes))):
            ir.prefetch(self.buffer, 0, block, row, column + p, 0)


def output_map(
    isa: Isa, f: ir.PrimFuncBuilder, op: Conv | InvertedResidual | Pointwise, name: str = "y"
) -> Map:
    """What an operation writes: of a wide one floats."""
    return Map(isa.wide if op.wide else isa, f, name, *op.output)


class MapRow:
    """One row of a map, a `Row`."""

    def __init__(self, of: Map, number: ir.Expr) -> None:
        self._map, self._row = of, number

    def value(self, block: ir.Expr, column: ir.Expr, lane: ir.Expr) -> ir.Expr:
        """As `Row.value`."""
        return self._map.lanes(block, self._row, column, lane, 1)

    def operand(self, block: ir.Expr, column: ir.Expr, lane: ir.Expr) -> ir.Expr:
        """As `Row.operand`."""
        of = self._map
        return of.isa.element.operand(of.buffer, 0, block, self._row, column, lane)

    def vector(self, block: ir.Expr, column: ir.Expr) -> ir.Expr:
        """As `Row.vector`."""
        return self._map.vector(block, self._row, column)

    def store(self, block: ir.Expr, column: ir.Expr, *vectors: ir.Expr) -> None:
        """As `Row.store`."""
        if len(vectors) == 1:
            self._map.store(block, self._row, column, vectors[0])
        else:
            self._map.store_run(block, self._row, column, vectors)

    def ahead(self, column: ir.Expr, pixels: int) -> None:
        """As `Row.ahead`."""
        with ir.serial(0, self._map.blocks) as block:
            self._map.prefetch(block, self._row, column, pixels)
