"""The input around a block of outputs, in memory of the thread, with zeros where it ends.

Kernels that read a band know of no borders. What is copied is small beside what a dense window does
with it: two instructions a vector, beside a product for each output channel and tap.
"""

from collections.abc import Sequence
from typing import Protocol

from deploy import ir
from deploy.cpu.convolution import products_of
from deploy.cpu.elements import Element
from deploy.cpu.isa import Isa
from deploy.cpu.rows.maps import Map
from lut.ops import CHANNELS, Conv, Pair

_ROWS_AHEAD = 2  # of the row that is copied; the hardware does not ask for the next row by itself


class Band(Protocol):
    """Rows and columns of some maps, the parts."""

    def fill(self, row: ir.Expr, column: ir.Expr, first: ir.Expr = 0) -> None:
        """Become the rows and columns from these of the input on, which may lie outside it; of
        maps in groups, the channel blocks from `first` on."""

    def value(
        self, part: int, block: ir.Expr, row: ir.Expr, column: ir.Expr, lane: ir.Expr
    ) -> ir.Expr:
        """One float."""

    def operand(
        self, part: int, block: ir.Expr, row: ir.Expr, column: ir.Expr, lane: ir.Expr
    ) -> ir.Expr:
        """What `dot` of the band's element takes of a pixel: the channels from `lane` on."""


class Inputs:
    """The maps or the image that a convolution reads, as parameters: `x0`, `x1` ..., or `image`
    with `normalisation` behind the maps."""

    def __init__(self, isa: Isa, f: ir.PrimFuncBuilder, op: Conv) -> None:
        self.isa, self.op = isa, op
        self.maps: list[Map] = []
        self.image: ir.Buffer = None
        self.normalisation: ir.Buffer = None
        size = op.height, op.width
        if op.source == "maps":
            self.maps = [Map(isa, f, f"x{i}", c, *size) for i, c in enumerate(op.cin)]
        elif op.source == "uint8_nhwc":
            self.image = f.param("image", (1, *size, CHANNELS), "uint8")
        else:
            self.image = f.param("image", (1, CHANNELS, *size))

    @property
    def element(self) -> Element:
        """Of the band and the weights: an image's numbers stay float32."""
        return products_of(self.isa, self.op)

    def constants(self, f: ir.PrimFuncBuilder) -> None:
        """Declare how an image is normalised: factors and shifts of three vectors of interleaved
        pixels."""
        if self.op.source == "uint8_nhwc":
            self.normalisation = f.param("normalisation", (2, CHANNELS, self.isa.lanes))

    def as_row(self) -> None:
        """Let every map be one row of all its pixels."""
        self.maps = [x.as_row() for x in self.maps]

    def band(
        self, size: Pair, blocks: int | None = None, step: Pair = (1, 1)
    ) -> "MapBand | ImageBand":
        """Memory for so many rows and columns, of a map `step` apart; of `blocks` channel blocks
        where not of all."""
        if self.image is not None:
            return ImageBand(self, size)
        return MapBand(self.isa, self.maps, size, blocks, step)


class MapBand:
    """A `Band` of blocked maps, as they are stored: (blocks, rows, columns, c)."""

    def __init__(
        self, isa: Isa, maps: Sequence[Map], size: Pair, blocks: int | None, step: Pair
    ) -> None:
        self.isa, self.maps, (self.rows, self.columns), self._step = isa, maps, size, step
        self.blocks = sum(x.blocks for x in maps) if blocks is None else blocks
        self._whole = blocks is None
        self._first = [sum(x.blocks for x in maps[:i]) for i in range(len(maps))]
        size_of_all = self.blocks * self.rows * self.columns * isa.lanes
        self._buffer = ir.scratch(size_of_all, isa.element.stored)

    def _at(self, block: ir.Expr, row: ir.Expr, column: ir.Expr) -> ir.Expr:
        return ((block * self.rows + row) * self.columns + column) * self.isa.lanes

    def fill(self, row: ir.Expr, column: ir.Expr, first: ir.Expr = 0) -> None:
        """As `Band.fill`."""
        c, here = self.isa.lanes, 0
        zeros = ir.cast(ir.const(0, c), self.isa.element.stored, c)
        for x in self.maps:
            blocks = x.blocks if self._whole else self.blocks
            with ir.serial(0, blocks) as block, ir.serial(0, self.rows) as r:
                y = ir.bind(row + r * self._step[0])
                low, high = inside(y, column, (x.height, x.width), self.columns, self._step[1])
                base = ir.bind(self._at(here + block, r, 0))

                def clear(i: ir.Expr, base: ir.Expr = base) -> None:
                    ir.store(self._buffer, zeros, base + i * c, lanes=c)

                with ir.loop(0, low) as i:
                    clear(i)
                with ir.loop(low, high) as i:
                    at = ir.bind(column + i * self._step[1])
                    x.prefetch(first + block, y + _ROWS_AHEAD * self._step[0], at, 1)
                    value = ir.load(x.buffer, 0, first + block, y, at, 0, lanes=c)
                    ir.store(self._buffer, value, base + i * c, lanes=c)
                with ir.loop(high, self.columns) as i:
                    clear(i)
            here += blocks

    def value(
        self, part: int, block: ir.Expr, row: ir.Expr, column: ir.Expr, lane: ir.Expr
    ) -> ir.Expr:
        """As `Band.value`."""
        at = self._at(self._first[part] + block, row, column) + lane
        return self.isa.element.value(self._buffer, at)

    def operand(
        self, part: int, block: ir.Expr, row: ir.Expr, column: ir.Expr, lane: ir.Expr
    ) -> ir.Expr:
        """As `Band.operand`."""
        at = self._at(self._first[part] + block, row, column) + lane
        return self.isa.element.operand(self._buffer, at)

    def vector(self, block: ir.Expr, row: ir.Expr, column: ir.Expr) -> ir.Expr:
        """A channel block of one pixel, counted through all parts, as floats."""
        at = self._at(block, row, column)
        return self.isa.element.load(self._buffer, at, lanes=self.isa.lanes)


class InPlace:
    """A `Band` where no tap lies outside: the maps themselves, from a row and a column on."""

    def __init__(self, maps: Sequence[Map]) -> None:
        self._maps = maps
        self._row: ir.Expr = 0
        self._column: ir.Expr = 0
        self._first: ir.Expr = 0

    def fill(self, row: ir.Expr, column: ir.Expr, first: ir.Expr = 0) -> None:
        """As `Band.fill`."""
        self._row, self._column, self._first = row, column, first

    def value(
        self, part: int, block: ir.Expr, row: ir.Expr, column: ir.Expr, lane: ir.Expr
    ) -> ir.Expr:
        """As `Band.value`."""
        of = self._maps[part].row(self._row + row)
        return of.value(self._first + block, self._column + column, lane)

    def operand(
        self, part: int, block: ir.Expr, row: ir.Expr, column: ir.Expr, lane: ir.Expr
    ) -> ir.Expr:
        """As `Band.operand`."""
        of = self._maps[part].row(self._row + row)
        return of.operand(self._first + block, self._column + column, lane)


class ImageBand:
    """A `Band` of an image: its one block has three lanes. Pixels interleaved, or planes."""

    def __init__(self, inputs: Inputs, size: Pair) -> None:
        self._in, (self.rows, self.columns) = inputs, size
        self._interleaved = inputs.normalisation is not None
        self._buffer = ir.scratch(CHANNELS * self.rows * self.columns)

    def value(
        self, part: int, block: ir.Expr, row: ir.Expr, column: ir.Expr, lane: ir.Expr
    ) -> ir.Expr:
        """As `Band.value`."""
        del part, block
        if self._interleaved:
            return self._buffer[(row * self.columns + column) * CHANNELS + lane]
        return self._buffer[(lane * self.rows + row) * self.columns + column]

    operand = value

    def fill(self, row: ir.Expr, column: ir.Expr, first: ir.Expr = 0) -> None:
        """As `Band.fill`."""
        del first
        op = self._in.op
        with ir.serial(0, self.rows) as r:
            y = ir.bind(row + r)
            low, high = inside(y, column, (op.height, op.width), self.columns)
            for i, end in ((0, low), (high, self.columns)):
                with ir.loop(i, end) as at:
                    for lane in range(CHANNELS):
                        ir.store_scalar(self._buffer, 0.0, self._place(r, at, lane))
            if self._interleaved:
                self._normalise(y, column, r, low, high)
            else:
                for lane in range(CHANNELS):
                    with ir.loop(low, high) as at:
                        value = self._in.image[0, lane, y, column + at]
                        ir.store_scalar(self._buffer, value, self._place(r, at, lane))

    def _place(self, row: ir.Expr, column: ir.Expr, lane: int) -> ir.Expr:
        if self._interleaved:
            return (row * self.columns + column) * CHANNELS + lane
        return (lane * self.rows + row) * self.columns + column

    def _normalise(
        self, y: ir.Expr, left: ir.Expr, row: ir.Expr, low: ir.Expr, high: ir.Expr
    ) -> None:
        c, op = self._in.isa.lanes, self._in.op
        flat = ir.view(self._in.image, (op.height, op.width * CHANNELS))

        def pixels(begin: ir.Expr, size: int) -> None:
            # Whole pixels, so that lane i of every vector has the same channel in every turn.
            source, sink = (left + begin) * CHANNELS, (row * self.columns + begin) * CHANNELS
            for part in range(-(-size * CHANNELS // c)):
                lanes = min(c, size * CHANNELS - part * c)
                value = ir.load(flat, y, source + part * c, lanes=lanes)
                value = ir.cast(value, "float32", lanes)
                value = value * ir.load(self._in.normalisation, 0, part, 0, lanes=lanes)
                value = value + ir.load(self._in.normalisation, 1, part, 0, lanes=lanes)
                ir.store(self._buffer, value, sink + part * c, lanes=lanes)

        count = ir.bind(ir.maximum(high - low, 0))
        whole = ir.bind(count // c)
        with ir.loop(0, whole) as i:
            pixels(low + i * c, c)
        with ir.loop(low + whole * c, high) as at:
            pixels(at, 1)


def inside(
    row: ir.Expr, column: ir.Expr, size: Pair, columns: int, step: int = 1
) -> tuple[ir.Expr, ir.Expr]:
    """Of a band's row of `columns`, `step` apart from `column` of the map on, those [low, high)
    that lie in the map; none for a row outside."""
    height, width = size
    low = ir.minimum(ir.maximum(0 - column + step - 1, 0) // step, columns)
    high = ir.maximum(ir.minimum(columns, (width - column + step - 1) // step), low)
    there = ir.both(row >= 0, row < height)
    return ir.bind(ir.select(there, low, columns)), ir.bind(ir.select(there, high, columns))
