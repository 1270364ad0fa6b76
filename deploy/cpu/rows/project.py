"""Rows of a linear 1x1 convolution with an optional residual: the projection of an inverted
residual."""

from deploy import ir
from deploy.cpu.isa import Tile
from deploy.cpu.rows.buffer import RowBuffer
from deploy.cpu.rows.cuts import Chunk
from deploy.cpu.rows.maps import Map
from deploy.cpu.rows.product import Product
from deploy.cpu.rows.stage import Rows
from deploy.cpu.tiles import over_row_tiles


class Project:
    """W x + b [+ residual], chunk by chunk of the input channels."""

    def __init__(self, product: Product, tile: Tile) -> None:
        self.product, self.tile = product, tile

    def row(
        self,
        x: RowBuffer,
        chunk: Chunk,
        number: ir.Expr,
        left: ir.Expr,
        y: Rows,
        residual: Map | None,
    ) -> None:
        """Add what the chunk in x gives to row `number` of y, from column `left` on; the chunk that
        begins at block 0 starts it."""
        lanes, number = self.product.isa.lanes, ir.bind(number)
        out, added = y.row(number), residual.row(number) if residual is not None else None

        def tile(first: ir.Expr, ob: int, begin: ir.Expr, px: int) -> None:
            acc = ir.Registers(px * ob, lanes)

            def fresh() -> None:
                for p in range(px):
                    for o in range(ob):
                        value = self.product.bias(first + o)
                        if added is not None:
                            value = value + added.vector(first + o, left + begin + p)
                        acc[p * ob + o] = value

            def so_far() -> None:
                for p in range(px):
                    for o in range(ob):
                        acc[p * ob + o] = out.vector(first + o, left + begin + p)

            if not isinstance(chunk.first, int):
                with ir.when(chunk.first == 0):
                    with ir.then():
                        fresh()
                    with ir.otherwise():
                        so_far()
            elif chunk.first == 0:
                fresh()
            else:
                so_far()
            self.product.tile(
                px,
                ob,
                first,
                x=lambda p, block, lane: x.operand(block, begin + p, lane),
                finish=lambda p, o, v: out.store(first + o, left + begin + p, v),
                registers=acc,
                chunk=chunk,
            )

        over_row_tiles(self.product.blocks, x.columns, self.tile, tile)

    def map(
        self, x: RowBuffer, pixels: int, tasks: int, y: Map, residual: Map | None = None
    ) -> None:
        """The whole map y from x, which holds all the pixels as one row, in `tasks` ranges of
        pixels in parallel."""
        out = y.as_row().row(0)
        added = residual.as_row() if residual is not None else None

        def init(block: ir.Expr, pixel: ir.Expr) -> ir.Expr:
            value = self.product.bias(block)
            if added is not None:
                value = value + added.vector(block, 0, pixel)
            return value

        self.product.over_pixels(
            pixels,
            self.tile,
            tasks,
            x=lambda pixel, block, lane: x.operand(block, pixel, lane),
            init=init,
            finish=out.store,
        )
