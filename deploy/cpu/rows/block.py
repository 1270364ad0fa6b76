"""Rows of channels that no map holds -> depthwise -> projection.

The hidden rows come from a maker, an expansion or the first convolution, in a ring.
"""

from dataclasses import dataclass

from deploy import ir
from deploy.cpu.isa import Isa
from deploy.cpu.rows.buffer import RowBuffer
from deploy.cpu.rows.codes import Code
from deploy.cpu.rows.cuts import Chunk, Span, over_chunks, over_strips, row_range
from deploy.cpu.rows.depthwise import DepthwiseRows
from deploy.cpu.rows.depthwise_bytes import DepthwiseBytes
from deploy.cpu.rows.maps import Map
from deploy.cpu.rows.project import Project
from deploy.cpu.rows.ring import Band, Phase, Ring
from deploy.cpu.rows.stage import Keep, Maker, Rows
from deploy.cpu.rows.sweep import Sweep


@dataclass(frozen=True)
class Block:
    """The stages of a block: `hidden` channels, `chunk` blocks of them at once."""

    isa: Isa
    band: Band
    maker: Maker
    depthwise: DepthwiseRows | DepthwiseBytes
    project: Project
    hidden: int
    chunk: int
    ring: Code | None = None  # of the maker's rows

    def make_ring(self) -> Ring:
        """Of a thread."""
        pad = None if self.ring is None else self.ring.zero()
        return Ring(self.isa, self.band, self.chunk, pad)

    def in_ranges(self, tasks: int, y: Map, residual: Map | None = None) -> None:
        """The map y, each class of rows in `tasks` ranges, all in parallel.

        Each row of depthwise results is projected at once, and added to the output row by row and
        chunk by chunk. Neighbouring ranges of a class both compute the rows of the halo.
        """
        phases, window = self.band.phases, self.band.window
        with ir.parallel(0, phases * tasks) as index:
            phase = Phase(phases, ir.bind(index // tasks)) if phases > 1 else Phase()
            task = ir.bind(index % tasks) if phases > 1 else index
            top, bottom = map(ir.bind, row_range(task, tasks, phase.rows(window.out_height)))
            ring = self.make_ring()
            hidden = RowBuffer(self.isa, self.chunk, self.band.strip)

            def strip(left: ir.Expr) -> None:
                ring.clear(left)

                def chunk(part: Chunk) -> None:
                    sweep = Sweep(self.maker, ring, phase, part, left, top)
                    with ir.loop(top, bottom) as number:
                        self._output_row(sweep, hidden, number, y, residual)

                over_chunks(self.isa, self.hidden, self.chunk, chunk)

            over_strips(window.out_width, self.band.strip, strip)

    def in_chunks(self, tasks: int, y: Map, residual: Map | None = None) -> None:
        """The map y, chunks in parallel, each over the whole height; the depthwise results are
        written, and projected in `tasks` ranges of pixels. No halo is computed twice."""
        window, c = self.band.window, self.isa.lanes
        blocks, pixels = self.isa.blocks(self.hidden), window.out_height * window.out_width
        hidden = RowBuffer(self.isa, blocks, pixels)  # the whole map as one row
        with ir.parallel(0, blocks // self.chunk) as index:
            first = ir.bind(index * self.chunk)
            part = Chunk(first, self.chunk * c, self.chunk)
            ring = self.make_ring()

            def strip(left: ir.Expr) -> None:
                ring.clear(left)
                sweep = Sweep(self.maker, ring, Phase(), part, left, 0)
                with ir.loop(0, window.out_height) as row:

                    def keep(block: ir.Expr, column: ir.Expr, /, *vectors: ir.Expr) -> None:
                        pixel = row * window.out_width + left + column
                        hidden.store(first + block, pixel, *vectors)

                    self._depthwise_row(sweep, row, keep)

            over_strips(window.out_width, self.band.strip, strip)
        self.project.map(hidden, pixels, tasks, y, residual)

    def _depthwise_row(self, sweep: Sweep, number: ir.Expr, keep: Keep) -> None:
        sweep.advance(number)
        self.depthwise.ring_row(sweep.ring, sweep.phase, sweep.chunk, number, keep)

    def _output_row(
        self, sweep: Sweep, hidden: RowBuffer, number: ir.Expr, y: Rows, residual: Map | None
    ) -> None:
        """Add what the sweep's chunk gives to a row of the output; `hidden` is room for it."""
        self._depthwise_row(sweep, number, hidden.store)
        at = sweep.phase.map_row(number)
        self.project.row(hidden, sweep.chunk, at, sweep.left, y, residual)


class BlockSource:
    """The rows of a block as the `Source` of the stage behind it. All of the hidden channels are
    one chunk."""

    def __init__(self, block: Block) -> None:
        self.block = block

    def start(self, first: ir.Expr, span: Span) -> "BlockRows":
        """As `Source.start`."""
        return BlockRows(self.block, first, span)


class BlockRows:
    """One row of a block at a time, in memory of the thread; `SourceRows`."""

    def __init__(self, block: Block, first: ir.Expr, span: Span) -> None:
        self._block, strip = block, block.band.strip
        most = block.band.window.out_width - strip
        left = ir.bind(ir.maximum(0, ir.minimum(span.begin, most)))
        ring = block.make_ring()
        self._hidden = RowBuffer(block.isa, block.chunk, strip)
        self._row = RowBuffer(block.isa, block.project.product.blocks, strip, left)
        ring.clear(left)
        every = Chunk(0, block.hidden, block.chunk)
        self._sweep = Sweep(block.maker, ring, Phase(), every, left, first)

    def advance(self, number: ir.Expr) -> None:
        """As `SourceRows.advance`."""
        self._block._output_row(self._sweep, self._hidden, number, self, None)

    def row(self, number: ir.Expr) -> RowBuffer:
        """As `Rows.row`."""
        del number
        return self._row
