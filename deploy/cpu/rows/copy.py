"""Rows of a map as they are, for a window that wants them with padding around them."""

from deploy import ir
from deploy.cpu.rows.cuts import Chunk, Span
from deploy.cpu.rows.maps import Map
from deploy.cpu.rows.stage import Keep, MakeRow

PIXELS = 8  # at once


class CopiedRows:
    """A `Maker` of a map's own rows, as they are stored, several pixels as one vector where the
    window that wants them has no dilation."""

    def __init__(self, x: Map, dilation: int) -> None:
        self.x, self.together = x, dilation == 1

    def start(self, first: ir.Expr, span: Span, chunk: Chunk) -> MakeRow:
        """As `Maker.start`."""
        px = min(PIXELS, span.inside)
        # Of a row whose columns lie apart in the ring, one by one.
        each = next(n for n in (4, 2, 1) if px % n == 0) if self.together else 1

        def next_row(number: ir.Expr, keep: Keep) -> None:
            with ir.serial(0, chunk.blocks) as block:

                def tile(begin: ir.Expr) -> None:
                    for p in range(0, px, each):
                        stored = self.x.stored(chunk.first + block, number, begin + p, each)
                        keep(block, begin + p, stored)

                span.over_tiles(px, tile)

        return next_row
