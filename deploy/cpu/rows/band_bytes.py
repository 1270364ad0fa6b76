"""The input around a block of outputs in bytes, with the zero point where it ends."""

from typing import Protocol

from deploy import ir
from deploy.cpu.isa import Isa
from deploy.cpu.rows.band import inside
from deploy.cpu.rows.codes import Code
from deploy.cpu.rows.maps import Map
from lut.ops import CHANNELS, Pair

GROUP = 4  # bytes of one step of a sum
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

    def vector(self, block: ir.Expr, row: ir.Expr, column: ir.Expr) -> ir.Expr:
        """A channel block of one pixel, int16."""
        lanes = self._x.isa.lanes
        found = ir.load(self._buffer, self._at(block, row, column), lanes=lanes)
        return ir.cast(found, "int16", lanes)


class ImageBand:
    """A copy of an image (rows, columns, 4) in the quanta of what the convolution reads: three
    channels and one that counts nothing.

    `image` is (1, height, width, 3) uint8 with `normalisation` (2, c), factors and shifts to quanta
    that repeat every four lanes; or (1, 3, height, width) float32 and None.
    """

    def __init__(
        self, isa: Isa, image: ir.Buffer, normalisation: ir.Buffer, size: Pair, code: Code
    ) -> None:
        self._isa, self._image, self._normalisation = isa, image, normalisation
        (self._rows, self._columns), self._code = size, code
        axis = 1 if normalisation is not None else 2
        self._height, self._width = (int(image.shape[axis + i]) for i in range(2))
        self._zero = ir.bind(code.zero())
        self._buffer = ir.scratch(self._rows * self._columns * GROUP, "uint8")

    def fill(self, row: ir.Expr, column: ir.Expr, first: ir.Expr = 0) -> None:
        """As `ByteBand.fill`."""
        del first
        c = self._isa.lanes
        with ir.serial(0, self._rows) as r:
            y = ir.bind(row + r)
            low, high = inside(y, column, (self._height, self._width), self._columns)
            base = ir.bind(r * self._columns)
            for ends in ((0, low), (high, self._columns)):
                with ir.loop(*ends) as i:
                    zeros = ir.splat(self._zero, GROUP)
                    ir.store(self._buffer, zeros, (base + i) * GROUP, lanes=GROUP)
            if self._normalisation is None:
                with ir.loop(low, high) as i:
                    self._floats(y, column + i, base + i)
            else:
                whole = ir.bind(ir.maximum(high - low, 0) // c)
                with ir.loop(0, whole) as i:
                    self._pixels(y, column + low + i * c, base + low + i * c)
                with ir.loop(low + whole * c, high) as i:
                    self._pixel(y, column + i, base + i)

    def _floats(self, y: ir.Expr, x: ir.Expr, at: ir.Expr) -> None:
        for channel in range(CHANNELS):
            value = self._code.apply(self._image[0, channel, y, x], 1)
            self._isa.element.store(self._buffer, value, at * GROUP + channel, lanes=1)

    def _pixel(self, y: ir.Expr, x: ir.Expr, at: ir.Expr) -> None:
        for channel in range(CHANNELS):
            value = ir.cast(ir.cast(self._image[0, y, x, channel], "int32"), "float32")
            factor, shift = (self._normalisation[i, channel] for i in range(2))
            value = ir.fma(value, factor, shift, 1)
            self._isa.element.store(self._buffer, value, at * GROUP + channel, lanes=1)

    def _pixels(self, y: ir.Expr, x: ir.Expr, at: ir.Expr) -> None:
        """As many pixels as a vector has lanes, four vectors."""
        c = self._isa.lanes
        flat = ir.view(self._image, (self._height, self._width * CHANNELS))
        given = ir.bind(ir.load(flat, y, x * CHANNELS, lanes=CHANNELS * c))
        factor, shift = (ir.load(self._normalisation, i, 0, lanes=c) for i in range(2))
        vectors = []
        for part in range(GROUP):
            places = [part * c + lane for lane in range(c)]
            # The fourth of every pixel is one of its other channels again.
            lanes = [p // GROUP * CHANNELS + min(p % GROUP, CHANNELS - 1) for p in places]
            value = ir.cast(ir.cast(ir.pick(given, lanes), "int32", c), "float32", c)
            vectors.append(ir.fma(value, factor, shift, c))
        self._isa.element.store_run(self._buffer, vectors, at * GROUP, lanes=c)

    def operand(self, block: ir.Expr, row: ir.Expr, column: ir.Expr, lane: ir.Expr) -> ir.Expr:
        """As `ByteBand.operand`."""
        del block, lane
        at = (row * self._columns + column) * GROUP
        return self._isa.element.operand(self._buffer, at)


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
