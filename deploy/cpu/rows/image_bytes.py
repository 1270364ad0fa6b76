"""The camera's image: a ring of its newest rows in the quanta of the first convolution's input."""

from deploy import ir
from deploy.cpu.isa import Isa
from deploy.cpu.rows.codes import Code
from deploy.cpu.window import window_of
from lut.ops import CHANNELS, Stem
from lut.ops import STEM_KERNEL as ROWS
from lut.ops import STEM_STRIDE as STRIDE

GROUP = 4  # bytes of one step of a sum
TAPS = -(-ROWS * CHANNELS // GROUP)  # steps of a kernel's row


class ByteImageRing:
    """The rows that one row of the first convolution sees, in memory of the thread, interleaved
    pixels with the zero point on both sides: the network pads after normalising.

    `image` is (1, height, width, 3) uint8 with `normalisation` (2, 3, c), the factors and shifts to
    quanta of three vectors of interleaved pixels; or (1, 3, height, width) float32 and None.
    """

    def __init__(
        self, isa: Isa, op: Stem, image: ir.Buffer, normalisation: ir.Buffer | None, code: Code
    ) -> None:
        self._isa, self._op, self._image, self._code = isa, op, image, code
        self._normalisation = normalisation
        # One column left of the image, and as many right as the last output reaches; behind the
        # last row a step may read on, to no effect.
        padded = max(op.width + 1, STRIDE * window_of(op).out_width + 1)
        self._row_bytes = CHANNELS * padded
        self._buffer = ir.scratch(ROWS * self._row_bytes + GROUP, "uint8")
        zero = ir.bind(code.zero())
        with ir.serial(0, ROWS * self._row_bytes) as i:
            ir.store_scalar(self._buffer, zero, i)

    def operand(self, row: ir.Expr, column: ir.Expr, number: int) -> ir.Expr:
        """What `Element.dot` takes of the pixels from a column on (0 is left of the image): the
        `number`th four of their bytes."""
        at = (row % ROWS) * self._row_bytes + column * CHANNELS + number * GROUP
        return self._isa.element.operand(self._buffer, at)

    def fill(self, row: ir.Expr) -> None:
        """Bring in a row of the image."""
        base = ir.bind((row % ROWS) * self._row_bytes + CHANNELS)
        if self._normalisation is None:
            self._copy(row, base)
        else:
            self._normalise(row, base)

    def _copy(self, row: ir.Expr, base: ir.Expr) -> None:
        with ir.serial(0, CHANNELS) as channel, ir.serial(0, self._op.width) as column:
            value = self._code.apply(self._image[0, channel, row, column], 1)
            at = base + column * CHANNELS + channel
            self._isa.element.store(self._buffer, value, at, lanes=1)

    def _normalise(self, row: ir.Expr, base: ir.Expr) -> None:
        c, width, element = self._isa.lanes, self._op.width, self._isa.element
        flat = ir.view(self._image, (self._op.height, width * CHANNELS))

        def quanta(start: ir.Expr, part: int, lanes: int) -> ir.Expr:
            # Whole pixels come before, so that lane i has the same channel in every turn.
            factor, shift = (
                ir.load(self._normalisation, i, part % CHANNELS, 0, lanes=lanes) for i in range(2)
            )
            return ir.fma(element.load(flat, row, start, lanes=lanes), factor, shift, lanes)

        def pixels(begin: ir.Expr, size: int) -> None:
            whole, rest = divmod(size * CHANNELS, element.run * c)
            start = begin * CHANNELS
            for part in range(0, whole * element.run, element.run):
                four = [quanta(start + (part + i) * c, part + i, c) for i in range(element.run)]
                element.store_run(self._buffer, four, base + start + part * c, lanes=c)
            for part in range(whole * element.run, whole * element.run + -(-rest // c)):
                lanes = min(c, size * CHANNELS - part * c)
                value = quanta(start + part * c, part, lanes)
                element.store(self._buffer, value, base + start + part * c, lanes=lanes)

        ir.over_tiles(width, element.run * c, pixels)
