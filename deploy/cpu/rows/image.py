"""The camera's image: a ring of its newest rows as normalised floats."""

from collections.abc import Callable
from typing import Protocol

from deploy import ir
from deploy.cpu.isa import Isa
from deploy.cpu.rows.cuts import Chunk, Span
from deploy.cpu.rows.stage import Keep, MakeRow
from deploy.cpu.window import window_of
from lut.ops import CHANNELS, Stem
from lut.ops import STEM_KERNEL as ROWS
from lut.ops import STEM_STRIDE as STRIDE


class ImageRing:
    """The rows that one row of the first convolution sees, in memory of the thread, with zeros on
    both sides: the network pads after normalising.

    `image` is (1, height, width, 3) uint8 with `normalisation` (2, 3, c), the factors and shifts of
    three vectors of interleaved pixels; or (1, 3, height, width) float32 and None.
    """

    def __init__(
        self, isa: Isa, op: Stem, image: ir.Buffer, normalisation: ir.Buffer | None
    ) -> None:
        self._isa, self._op, self._image, self._normalisation = isa, op, image, normalisation
        # One zero column left of the image, and as many right as the last output reaches.
        padded = max(op.width + 1, STRIDE * window_of(op).out_width + 1)
        self._row_floats = CHANNELS * padded
        # Where (column of the padded row, channel) lies in a ring row.
        interleaved = normalisation is not None
        self._step_column, self._step_channel = (CHANNELS, 1) if interleaved else (1, padded)
        self._buffer = ir.scratch(ROWS * self._row_floats)
        with ir.serial(0, ROWS * self._row_floats) as i:
            ir.store_scalar(self._buffer, 0.0, i)

    def value(self, row: ir.Expr, channel: ir.Expr, column: ir.Expr) -> ir.Expr:
        """One float; column 0 is left of the image."""
        base = (row % ROWS) * self._row_floats + channel * self._step_channel
        return self._buffer[base + column * self._step_column]

    def fill(self, row: ir.Expr) -> None:
        """Bring in a row of the image."""
        base = ir.bind((row % ROWS) * self._row_floats)
        if self._normalisation is None:
            self._copy(row, base)
        else:
            self._normalise(row, base)

    def _copy(self, row: ir.Expr, base: ir.Expr) -> None:
        with ir.serial(0, CHANNELS) as channel:

            def part(begin: ir.Expr, size: int) -> None:
                at = base + channel * self._step_channel + 1 + begin
                value = ir.load(self._image, 0, channel, row, begin, lanes=size)
                ir.store(self._buffer, value, at, lanes=size)

            ir.over_tiles(self._op.width, self._isa.lanes, part)

    def _normalise(self, row: ir.Expr, base: ir.Expr) -> None:
        c, width = self._isa.lanes, self._op.width
        flat = ir.view(self._image, (self._op.height, width * CHANNELS))

        def pixels(begin: ir.Expr, size: int) -> None:
            # Whole pixels, so that lane i of every vector has the same channel in every turn.
            for part in range(-(-size * CHANNELS // c)):
                lanes = min(c, size * CHANNELS - part * c)
                start = begin * CHANNELS + part * c
                value = ir.cast(ir.load(flat, row, start, lanes=lanes), "float32", lanes)
                value = value * ir.load(self._normalisation, 0, part, 0, lanes=lanes)
                value = value + ir.load(self._normalisation, 1, part, 0, lanes=lanes)
                ir.store(self._buffer, value, base + CHANNELS + start, lanes=lanes)

        ir.over_tiles(width, c, pixels)


class Filled(Protocol):
    """A ring of an image's rows, of floats or of bytes."""

    def fill(self, row: ir.Expr) -> None:
        """Bring in a row of the image."""


def over_image(
    ring: Filled, height: int, first: ir.Expr, convolve: Callable[[ir.Expr, Keep], None]
) -> MakeRow:
    """What makes rows of the first convolution from `first` on: each brings in the rows of the
    image that the one before did not see."""
    with ir.when(first > 0), ir.then():
        ring.fill(first * STRIDE - 1)

    def next_row(number: ir.Expr, keep: Keep) -> None:
        with ir.loop(number * STRIDE, ir.minimum(number * STRIDE + STRIDE, height)) as row:
            ring.fill(row)
        convolve(number, keep)

    return next_row


def whole_row(isa: Isa, op: Stem) -> tuple[Span, Chunk]:
    """What to ask the first convolution for where every column of every channel is wanted."""
    width = window_of(op).out_width
    return Span(width, 0, width, width), Chunk(0, op.cout, isa.blocks(op.cout))
