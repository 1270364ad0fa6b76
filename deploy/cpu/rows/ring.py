"""The ring of newest rows that a window moves over.

It is padded with zeros (bytes: the zero point) left and right, so that the window has no special
columns. Rows outside the map are never stored: the loop over the window's rows leaves them out.
"""

from dataclasses import dataclass

from deploy import ir
from deploy.cpu.elements import FLOAT32
from deploy.cpu.isa import Isa
from deploy.cpu.rows.cuts import Span
from deploy.cpu.window import Window


@dataclass(frozen=True)
class Phase:
    """One class of the rows of a map, those equal modulo `count`: row y of the phase is row
    y * count + index of the map."""

    count: int = 1
    index: ir.Expr = 0

    def rows(self, height: int) -> ir.Expr:
        """How many of the map's rows are of this class."""
        if height % self.count == 0:
            return height // self.count
        return ir.bind((height - self.index + self.count - 1) // self.count)

    def map_row(self, y: ir.Expr) -> ir.Expr:
        """The number of a row in the map."""
        return y * self.count + self.index


@dataclass(frozen=True)
class Band:
    """What output rows see of a window's input: `strip` output columns at once, rows of one of
    `phases` classes, which divide the dilation."""

    window: Window
    strip: int
    phases: int = 1

    def __post_init__(self) -> None:
        # A strip wider than the row would write past the buffers of one strip.
        if not 1 <= self.strip <= self.window.out_width:
            raise ValueError(f"strips of {self.strip} columns in rows of {self.window.out_width}")

    @property
    def row_dilation(self) -> int:
        """Dilation between the rows of a phase."""
        return self.window.dilation // self.phases

    @property
    def rows(self) -> int:
        """Rows that one output row sees."""
        reach = (self.window.kernel - 1) * self.row_dilation + 1
        return min(reach, -(-self.window.height // self.phases))

    @property
    def columns(self) -> int:
        """Columns that one strip sees, padding counted."""
        window = self.window
        return (self.strip - 1) * window.stride + (window.kernel - 1) * window.dilation + 1

    def origin(self, left: ir.Expr) -> ir.Expr:
        """The input's column that output column `left` sees first."""
        return left * self.window.stride - self.window.pad

    def span(self, left: ir.Expr) -> Span:
        """The input's columns that the strip from output column `left` on sees."""
        width = self.window.width
        inside = min(width, self.columns - self.window.pad)
        if self.strip == self.window.out_width:
            return Span(width, 0, inside, inside)
        return Span(width, self.origin(left), self.columns, inside)


class Ring:
    """The rows of `blocks` channel blocks that the window sees, in memory of the thread.

    Floats of each pixel, but bytes of an integer element. Of those the columns that one output sees
    lie together: a row is divided into `classes`, its columns modulo the dilation.
    """

    def __init__(self, isa: Isa, band: Band, blocks: int, pad: ir.Expr | None = None) -> None:
        self.band, self.blocks, self._lanes = band, blocks, isa.lanes
        self._element = isa.element if isa.element.integer else FLOAT32
        self._pad = ir.const(0, isa.lanes) if pad is None else ir.bind(ir.splat(pad, isa.lanes))
        self.classes = band.window.dilation if isa.element.integer else 1
        self._columns = self.classes * -(-band.columns // self.classes)
        # Behind the last column a window may read on, to no effect.
        elements = (band.rows * blocks * self._columns + self._element.group) * isa.lanes
        self._buffer = ir.scratch(elements, self._element.stored)

    def clear(self, left: ir.Expr) -> None:
        """Zeros in the columns outside the map, for the strip from output column `left` on."""
        columns, origin = self.band.columns, self.band.origin(left)
        before = ir.bind(ir.maximum(0, -origin))
        behind = ir.bind(ir.minimum(columns, self.band.window.width - origin))

        def zero(row: ir.Expr, column: ir.Expr) -> None:
            at = (row * self._columns + self._place(column)) * self._lanes
            ir.store(self._buffer, self._pad, at, lanes=self._lanes)

        with ir.serial(0, self.band.rows * self.blocks) as row:
            with ir.loop(0, before) as column:
                zero(row, column)
            with ir.loop(behind, columns) as column:
                zero(row, column)

    def _place(self, column: ir.Expr) -> ir.Expr:
        """Of a column in a row."""
        if self.classes == 1:
            return column
        each = self._columns // self.classes
        return column % self.classes * each + column // self.classes

    def _at(self, slot: ir.Expr, block: ir.Expr, place: ir.Expr) -> ir.Expr:
        return ((slot * self.blocks + block) * self._columns + place) * self._lanes

    def slot(self, row: ir.Expr) -> ir.Expr:
        """Where a row lies, by its number in the phase."""
        return ir.bind(row % self.band.rows)

    def vector(self, slot: ir.Expr, block: ir.Expr, column: ir.Expr) -> ir.Expr:
        """A channel block of one pixel; columns count from the strip's first."""
        return ir.load(self._buffer, self._at(slot, block, column), lanes=self._lanes)

    def operands(self, slot: ir.Expr, block: ir.Expr, of: ir.Expr, number: ir.Expr) -> ir.Expr:
        """What `Element.dot` takes of four neighbouring columns of class `of`, from its `number`th
        on, in every lane of a channel of its own."""
        at = self._at(slot, block, of * (self._columns // self.classes) + number)
        return self._element.columns(self._buffer, at, lanes=self._lanes)

    def store(self, slot: ir.Expr, block: ir.Expr, column: ir.Expr, *vectors: ir.Expr) -> None:
        """Write a channel block of neighbouring pixels, from a column on."""
        if self.classes == 1:
            at = self._at(slot, block, column)
            self._element.store_run(self._buffer, vectors, at, lanes=self._lanes)
            return
        for number, vector in enumerate(vectors):
            at = self._at(slot, block, self._place(ir.bind(column + number)))
            self._element.store(self._buffer, vector, at, lanes=self._lanes)
