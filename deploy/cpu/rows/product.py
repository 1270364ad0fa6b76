"""A 1x1 convolution: its constants, and the sums of its products."""

from collections.abc import Callable
from typing import Protocol

from deploy import ir
from deploy.cpu.isa import Isa, Tile
from deploy.cpu.rows.cuts import Chunk
from deploy.cpu.rows.maps import pixels_ahead
from deploy.cpu.tiles import matmul_tile

# Weights of a map's product that come from far away in each frame. Those of a tile's output blocks
# would come all at once, as fast as memory gives them, and other pixels' tiles find them near:
# they are asked for while the blocks before them are computed.
_FAR_BYTES = 128 << 10

Start = Callable[[int, int], ir.Expr]  # of (pixel, output block) of a tile


class Finish(Protocol):
    """Takes results of neighbouring pixels of one output block."""

    def __call__(self, pixel: ir.Expr, block: ir.Expr, /, *vectors: ir.Expr) -> None:
        """The vectors are of one pixel each, from `pixel` on."""


class Product:
    """W x + b over the channels of a pixel. Parameters: `NAMEweight` (O/c, I/g, c * g), g channels
    of one step together (`deploy.cpu.elements`), `NAMEbias` (O/c, c), and where sums are integers
    `NAMEmultiplier` (O/c, c), what makes numbers of them."""

    def __init__(
        self, isa: Isa, f: ir.PrimFuncBuilder, cin: int, cout: int, name: str = ""
    ) -> None:
        self.isa, self.cin, self.blocks = isa, cin, isa.blocks(cout)
        element = isa.element
        shape = self.blocks, -(-cin // element.group), isa.lanes * element.group
        self._weight = f.param(f"{name}weight", shape, element.stored_weights)
        vector = self.blocks, isa.lanes
        self._bias = f.param(f"{name}bias", vector, element.sums)
        self._multiplier = f.param(f"{name}multiplier", vector) if element.integer else None

    def bias(self, block: ir.Expr) -> ir.Expr:
        """The bias of an output block, which a sum starts from."""
        return ir.load(self._bias, block, 0, lanes=self.isa.lanes)

    def tile(
        self,
        px: int,
        ob: int,
        first: ir.Expr,
        *,
        x: Callable[[int, ir.Expr, ir.Expr], ir.Expr],
        finish: Finish,
        start: Start | None = None,
        registers: ir.Registers | None = None,
        chunk: Chunk | None = None,
    ) -> None:
        """px pixels x ob output blocks, from block `first` on: `deploy.cpu.tiles.matmul_tile`.

        `start` is added to every result, or the sums begin in `registers`; with `chunk` they are of
        these input channels only, and the blocks of x count from its first.
        """
        c, element = self.isa.lanes, self.isa.element
        part = chunk or Chunk(0, self.cin, self.isa.blocks(self.cin))
        sums: dict[tuple[int, int], ir.Expr] = {}

        def init(p: int, o: int) -> ir.Expr:
            value = self.bias(first + o)
            return value if start is None or element.integer else value + start(p, o)

        def keep(p: int, o: int, value: ir.Expr) -> None:
            if element.integer:
                sums[p, o] = value
            else:
                finish(p, o, value)

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
            init=init if registers is None else None,
            finish=keep,
            registers=registers,
            element=element,
        )
        if element.integer:
            self._scale(px, ob, first, sums, start, finish)

    def _scale(
        self, px: int, ob: int, first: ir.Expr, sums: dict[tuple[int, int], ir.Expr],
        start: Start | None, finish: Finish,
    ) -> None:  # fmt: skip
        """Hand on numbers instead of sums, neighbouring pixels together."""
        c, run = self.isa.lanes, self.isa.element.run
        for o in range(ob):
            multiplier = ir.bind(ir.load(self._multiplier, first + o, 0, lanes=c))

            def number(p: int, o: int = o, multiplier: ir.Expr = multiplier) -> ir.Expr:
                added = ir.const(0, c) if start is None else start(p, o)
                return ir.fma(ir.cast(sums[p, o], "float32", c), multiplier, added, c)

            for begin in range(0, px, run):
                finish(begin, o, *[number(p) for p in range(begin, min(begin + run, px))])

    def over_pixels(
        self,
        pixels: int,
        tile: Tile,
        tasks: int,
        *,
        x: Callable[[ir.Expr, ir.Expr, ir.Expr], ir.Expr],
        start: Callable[[ir.Expr, ir.Expr], ir.Expr] | None,
        finish: Finish,
        ahead: Callable[[ir.Expr, ir.Expr], None] | None = None,
    ) -> None:
        """A whole map as one row of `pixels`, in `tasks` ranges in parallel: x(pixel, block, lane),
        start(pixel, output block), which is added, finish(pixel, output block, vectors);
        ahead(pixel, block) asks for some of x that will be read."""
        c, element = self.isa.lanes, self.isa.element
        steps = c // element.group  # of a block of x
        far = self.blocks * self.cin * c * element.bytes >= _FAR_BYTES
        px = min(tile.px, pixels)
        per_task = -(-(-(-pixels // px)) // tasks)
        with ir.parallel(0, tasks) as task:

            def group(first: ir.Expr, ob: int) -> None:
                with ir.serial(0, per_task) as t:
                    # The last tiles overlap instead of being shorter: the same values are written
                    # twice, and no second copy of the code is needed.
                    begin = ir.bind(ir.minimum((task * per_task + t) * px, pixels - px))

                    def added(p: int, o: int) -> ir.Expr:
                        assert start is not None
                        return start(begin + p, first + o)

                    def operand(p: int, block: ir.Expr, lane: ir.Expr) -> ir.Expr:
                        if p == 0 and far:
                            # In each step a line of one of the next blocks, tile by tile.
                            later = first + ob + ir.minimum(t, ob - 1)
                            later = ir.minimum(later, self.blocks - 1)
                            ir.prefetch(self._weight, later, (block * c + lane) // element.group, 0)
                        # Later output blocks find the same pixels in L2. In a step some, as no
                        # core can wait for all of a tile's at once.
                        if p == 0 and ahead is not None and isinstance(first, int) and first == 0:
                            each = -(-px // steps)
                            here = begin + max(px, pixels_ahead(self.isa))
                            here += lane // element.group * each
                            for number in range(each):
                                ahead(here + number, block)
                        return x(begin + p, block, lane)

                    self.tile(
                        px,
                        ob,
                        first,
                        x=operand,
                        start=None if start is None else added,
                        finish=lambda p, o, *v: finish(begin + p, first + o, *v),
                    )

            ir.over_tiles(self.blocks, tile.ob, group)
