"""Rows of a linear 1x1 convolution with an optional residual: the projection of an inverted
residual."""

from deploy import ir
from deploy.cpu.isa import Tile
from deploy.cpu.rows.buffer import RowBuffer
from deploy.cpu.rows.codes import Ending
from deploy.cpu.rows.cuts import Chunk
from deploy.cpu.rows.maps import Map
from deploy.cpu.rows.product import Product
from deploy.cpu.rows.stage import Row, Rows
from deploy.cpu.tiles import over_row_tiles

SUM_BYTES = 4  # of an element that holds what a part of the channels gives


class Project:
    """W x + b [+ residual], chunk by chunk of the input channels; of elements that hold no sums,
    all of them are one chunk. The `ending` has no activation."""

    def __init__(self, product: Product, tile: Tile, ending: Ending) -> None:
        self.product, self.tile, self.ending = product, tile, ending

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
        if self.product.isa.element.bytes < SUM_BYTES:
            self._whole_row(x, left, out, added)
            return

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

    def _whole_row(self, x: RowBuffer, left: ir.Expr, out: Row, added: Row | None) -> None:
        """The row, all of whose input channels are in x."""

        def tile(first: ir.Expr, ob: int, begin: ir.Expr, px: int) -> None:
            def addend(p: int, o: int) -> ir.Expr:
                assert added is not None
                return added.vector(first + o, left + begin + p)

            self.product.tile(
                px,
                ob,
                first,
                x=lambda p, block, lane: x.operand(block, begin + p, lane),
                start=self.ending.starts() if added is None else addend,
                finish=lambda p, o, *v: out.store(
                    first + o, left + begin + p, *self.ending.apply(*v)
                ),
            )

        over_row_tiles(self.product.blocks, x.columns, self.tile, tile)

    def map(
        self, x: RowBuffer, pixels: int, tasks: int, y: Map, residual: Map | None = None
    ) -> None:
        """The whole map y from x, which holds all the pixels as one row, in `tasks` ranges of
        pixels in parallel."""
        out = y.as_row().row(0)
        added = residual.as_row() if residual is not None else None

        def addend(pixel: ir.Expr, block: ir.Expr) -> ir.Expr:
            assert added is not None
            return added.vector(block, 0, pixel)

        self.product.over_pixels(
            pixels,
            self.tile,
            tasks,
            x=lambda pixel, block, lane: x.operand(block, pixel, lane),
            start=self.ending.starts() if added is None else addend,
            finish=lambda pixel, block, *v: out.store(block, pixel, *self.ending.apply(*v)),
        )
