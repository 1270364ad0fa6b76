"""Rows of a 1x1 convolution: the expansion of an inverted residual."""

from collections.abc import Callable

from deploy import ir
from deploy.cpu.isa import Tile
from deploy.cpu.rows.codes import Ending
from deploy.cpu.rows.cuts import Chunk, Span
from deploy.cpu.rows.product import Product
from deploy.cpu.rows.stage import Keep, Source


class Expand:
    """The ending of W x + b of the rows of a source; a `Maker`. While it reads a pixel it asks for
    the one `prefetch` pixels ahead (0: for none)."""

    def __init__(
        self, source: Source, product: Product, ending: Ending, tile: Tile, prefetch: int = 0
    ) -> None:
        self.source, self.product, self.ending = source, product, ending
        self.tile, self.prefetch = tile, prefetch

    def start(self, first: ir.Expr, span: Span, chunk: Chunk) -> Callable[[ir.Expr, Keep], None]:
        """As `Maker.start`."""
        source = self.source.start(first, span)
        px = min(self.tile.px, span.inside)

        def next_row(number: ir.Expr, keep: Keep) -> None:
            source.advance(number)
            row = source.row(ir.bind(number))

            def group(block: ir.Expr, ob: int) -> None:
                def tile(begin: ir.Expr) -> None:
                    if self.prefetch and isinstance(block, int) and block == 0:
                        row.ahead(begin + self.prefetch, px)
                    self.product.tile(
                        px,
                        ob,
                        chunk.first + block,
                        x=lambda p, block, lane: row.operand(block, begin + p, lane),
                        start=self.ending.starts(),
                        finish=lambda p, o, *v: keep(block + o, begin + p, *self.ending.apply(*v)),
                    )

                span.over_tiles(px, tile)

            ir.over_tiles(chunk.blocks, self.tile.ob, group)

        return next_row
