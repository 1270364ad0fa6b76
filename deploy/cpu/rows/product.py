"""A 1x1 convolution: its constants, and the sums of its products."""

from collections.abc import Callable

from deploy import ir
from deploy.cpu.isa import Isa, Tile
from deploy.cpu.rows.cuts import Chunk
from deploy.cpu.tiles import matmul_tile

_PIXELS_AHEAD = 32  # what maps beyond L2 need to arrive in time


class Product:
    """W x + b over the channels of a pixel; two parameters, `NAMEweight` (O/c, I/g, c * g), g
    channels of one step together (`deploy.cpu.elements`), and `NAMEbias` (O/c, c)."""

    def __init__(
        self, isa: Isa, f: ir.PrimFuncBuilder, cin: int, cout: int, name: str = ""
    ) -> None:
        self.isa, self.cin, self.blocks = isa, cin, isa.blocks(cout)
        element = isa.element
        shape = self.blocks, -(-cin // element.group), isa.lanes * element.group
        self._weight = f.param(f"{name}weight", shape, element.stored)
        self._bias = f.param(f"{name}bias", (self.blocks, isa.lanes))

    def bias(self, block: ir.Expr) -> ir.Expr:
        """The bias of an output block."""
        return ir.load(self._bias, block, 0, lanes=self.isa.lanes)

    def tile(
        self,
        px: int,
        ob: int,
        first: ir.Expr,
        *,
        x: Callable[[int, ir.Expr, ir.Expr], ir.Expr],
        finish: Callable[[int, int, ir.Expr], None],
        init: Callable[[int, int], ir.Expr] | None = None,
        registers: ir.Registers | None = None,
        chunk: Chunk | None = None,
    ) -> None:
        """px pixels x ob output blocks, from block `first` on: `deploy.cpu.tiles.matmul_tile`.

        The sums start from the bias, from `init`, or in `registers`; with `chunk` they are of these
        input channels only, and the blocks of x count from its first.
        """
        c, element = self.isa.lanes, self.isa.element
        part = chunk or Chunk(0, self.cin, self.isa.blocks(self.cin))
        if init is None and registers is None:

            def init(p: int, o: int) -> ir.Expr:
                return self.bias(first + o)

        matmul_tile(
            self.isa,
            px,
            ob,
            part.channels,
            x=x,
            w=lambda o, block, lane: element.weights(
                self._weight,
                first + o,
                ((part.first + block) * c + lane) // element.group,
                lanes=c,
            ),
            init=init,
            finish=finish,
            registers=registers,
            element=element,
        )

    def over_pixels(
        self,
        pixels: int,
        tile: Tile,
        tasks: int,
        *,
        x: Callable[[ir.Expr, ir.Expr, ir.Expr], ir.Expr],
        init: Callable[[ir.Expr, ir.Expr], ir.Expr],
        finish: Callable[[ir.Expr, ir.Expr, ir.Expr], None],
        ahead: Callable[[ir.Expr, int], None] | None = None,
    ) -> None:
        """A whole map as one row of `pixels`, in `tasks` ranges in parallel: x(pixel, block, lane),
        init(output block, pixel), finish(output block, pixel, vector); ahead(pixel, pixels) asks
        for some of x that will be read."""
        px = min(tile.px, pixels)
        per_task = -(-(-(-pixels // px)) // tasks)
        with ir.parallel(0, tasks) as task:

            def group(first: ir.Expr, ob: int) -> None:
                with ir.serial(0, per_task) as t:
                    # The last tiles overlap instead of being shorter: the same values are written
                    # twice, and no second copy of the code is needed.
                    begin = ir.bind(ir.minimum((task * per_task + t) * px, pixels - px))
                    # Later output blocks find the same pixels in L2.
                    if ahead is not None and isinstance(first, int) and first == 0:
                        ahead(begin + max(px, _PIXELS_AHEAD), px)
                    self.tile(
                        px,
                        ob,
                        first,
                        x=lambda p, block, lane: x(begin + p, block, lane),
                        init=lambda p, o: init(first + o, begin + p),
                        finish=lambda p, o, v: finish(first + o, begin + p, v),
                    )

            ir.over_tiles(self.blocks, tile.ob, group)
