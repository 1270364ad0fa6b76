"""From above, row by row: input rows come into a ring, and behind the last one that an output row
needs, that row can be computed."""

from deploy import ir
from deploy.cpu.rows.cuts import Chunk
from deploy.cpu.rows.ring import Phase, Ring
from deploy.cpu.rows.stage import Maker


class Sweep:
    """One chunk of channels and one strip, from output column `left` on, of the rows of a phase
    from output row `top` on. When it is made, the rows are there that row `top` adds none to."""

    # Row `y` needs the rows up to y*stride - pad + reach - 1; what lies outside is not made.

    def __init__(
        self, maker: Maker, ring: Ring, phase: Phase, chunk: Chunk, left: ir.Expr, top: ir.Expr
    ) -> None:
        self.ring, self.phase, self.chunk, self.left = ring, phase, chunk, left
        band, window = ring.band, ring.band.window
        above = band.row_dilation * (window.kernel // 2)
        self._reach = (window.kernel - 1) * band.row_dilation - above
        height = phase.rows(window.height)
        self._first = ir.bind(ir.maximum(0, top * window.stride - above))
        self._make = maker.start(phase.map_row(self._first), band.span(left), chunk)
        last = top * window.stride + self._reach - window.stride + 1
        with ir.loop(self._first, ir.bind(ir.minimum(height, last))) as row:
            self._fill(row)

    def advance(self, y: ir.Expr) -> None:
        """Bring in the rows that output row y needs and the row before it did not."""
        window = self.ring.band.window
        height, last = self.phase.rows(window.height), y * window.stride + self._reach
        begin = ir.bind(ir.maximum(self._first, last - window.stride + 1))
        with ir.loop(begin, ir.minimum(height, last + 1)) as row:
            self._fill(row)

    def _fill(self, row: ir.Expr) -> None:
        slot, origin = self.ring.slot(row), self.ring.band.origin(self.left)

        def keep(block: ir.Expr, column: ir.Expr, /, *vectors: ir.Expr) -> None:
            self.ring.store(slot, block, column - origin, *vectors)

        self._make(self.phase.map_row(row), keep)
