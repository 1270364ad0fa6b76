"""Rows of the first 3x3 convolution at stride 2, from the camera's image."""

from deploy import ir
from deploy.cpu.isa import Isa, Tile
from deploy.cpu.rows.cuts import Chunk, Span
from deploy.cpu.rows.image import ImageRing, over_image, whole_row
from deploy.cpu.rows.stage import Keep, MakeRow
from deploy.cpu.window import row_bounds, window_of
from lut.ops import CHANNELS, Stem
from lut.ops import STEM_KERNEL as KERNEL
from lut.ops import STEM_STRIDE as STRIDE


class StemRows:
    """act(convolution + b) of the image; a `Maker`. Parameters: `image`, `weight`
    (O/c, k*k*3, c), `bias`, and for a uint8 image `normalisation` (2, 3, c)."""

    def __init__(self, isa: Isa, f: ir.PrimFuncBuilder, op: Stem, tile: Tile) -> None:
        self.isa, self.op, self.tile, self.window = isa, op, tile, window_of(op)
        blocks = isa.blocks(op.cout)
        if op.source == "uint8_nhwc":
            self._image = f.param("image", (1, op.height, op.width, CHANNELS), "uint8")
        else:
            self._image = f.param("image", (1, CHANNELS, op.height, op.width))
        self._weight = f.param("weight", (blocks, KERNEL**2 * CHANNELS, isa.lanes))
        self._bias = f.param("bias", (blocks, isa.lanes))
        self._normalisation = (
            f.param("normalisation", (2, 3, isa.lanes)) if op.source == "uint8_nhwc" else None
        )

    def start(self, first: ir.Expr, span: Span, chunk: Chunk) -> MakeRow:
        """As `Maker.start`."""
        ring = ImageRing(self.isa, self.op, self._image, self._normalisation)

        def convolve(number: ir.Expr, keep: Keep) -> None:
            self._convolve(ring, number, span, chunk, keep)

        return over_image(ring, self.op.height, first, convolve)

    def whole_row(self) -> tuple[Span, Chunk]:
        """What to ask for where every column of every channel is wanted."""
        return whole_row(self.isa, self.op)

    def _convolve(
        self, ring: ImageRing, number: ir.Expr, span: Span, chunk: Chunk, keep: Keep
    ) -> None:
        top = ir.bind(number * STRIDE - 1)
        bounds = row_bounds(KERNEL, 1, self.window.height, top)

        def group(block: ir.Expr, ob: int) -> None:
            def tile(begin: ir.Expr, px: int) -> None:
                acc = self._tile(ring, top, bounds, chunk.first + block, ob, begin, px)
                for p in range(px):
                    for o in range(ob):
                        value = ir.activate(acc[p * ob + o], self.op.act, self.isa.lanes)
                        keep(block + o, begin + p, value)

            if span.whole:
                ir.over_tiles(span.width, min(self.tile.px, span.width), tile)
            else:
                px = min(self.tile.px, span.inside)
                span.over_tiles(px, lambda begin: tile(begin, px))

        ir.over_tiles(chunk.blocks, self.tile.ob, group)

    def _tile(
        self,
        ring: ImageRing,
        top: ir.Expr,
        bounds: tuple[ir.Expr, ir.Expr],
        first: ir.Expr,
        ob: int,
        begin: ir.Expr,
        px: int,
    ) -> ir.Registers:
        """px pixels x ob blocks of the convolution, pixel-major."""
        c = self.isa.lanes
        acc = ir.Registers(px * ob, c)
        for p in range(px):
            for o in range(ob):
                acc[p * ob + o] = ir.load(self._bias, first + o, 0, lanes=c)
        # One tap a step: with three unrolled, LLVM loads the weights of all of them first and the
        # accumulators no longer fit the registers.
        with (
            ir.loop(*bounds) as ky,
            ir.serial(0, CHANNELS) as channel,
            ir.serial(0, KERNEL) as kx,
        ):
            tap = (ky * KERNEL + kx) * CHANNELS + channel
            weights = [
                ir.bind(ir.load(self._weight, first + o, tap, 0, lanes=c)) for o in range(ob)
            ]
            for p in range(px):
                column = (begin + p) * STRIDE + kx
                value = ir.bind(ir.splat(ring.value(top + ky, channel, column), c))
                for o in range(ob):
                    acc[p * ob + o] = acc[p * ob + o] + weights[o] * value
        return acc
