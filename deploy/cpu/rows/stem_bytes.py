"""Rows of the first 3x3 convolution at stride 2, from the camera's image, in bytes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy import ir
from deploy.cpu.isa import Isa, Tile
from deploy.cpu.rows.codes import Codes, Ending
from deploy.cpu.rows.cuts import Chunk, Span
from deploy.cpu.rows.image import over_image, whole_row
from deploy.cpu.rows.image_bytes import GROUP, TAPS, ByteImageRing
from deploy.cpu.rows.stage import Keep, MakeRow
from deploy.cpu.scales import pack_per_channel, pack_sums
from deploy.cpu.window import row_bounds, window_of
from deploy.grid import Grid
from lut.ops import CHANNELS, Stem
from lut.ops import STEM_KERNEL as KERNEL
from lut.ops import STEM_STRIDE as STRIDE


def pack_stem_bytes(
    isa: Isa, weight: NDArray[Any], bias: NDArray[Any], x: Grid,
    weight_scale: NDArray[np.float32], unit: Grid,
) -> list[NDArray[Any]]:  # fmt: skip
    """The constants of `StemBytes` from (O, 3, k, k), but for codes and normalisation."""
    out = len(weight)
    rows = np.zeros((KERNEL, TAPS * GROUP, out), np.int8)
    rows[:, : KERNEL * CHANNELS] = weight.transpose(2, 3, 1, 0).reshape(KERNEL, -1, out)
    taps = pack_per_channel(isa, rows.reshape(KERNEL, TAPS, GROUP, out))  # (O/c, k, taps, 4, c)
    together = np.swapaxes(taps, -1, -2).reshape(*taps.shape[:3], -1)
    of_row = weight.astype(np.int32).sum((1, 3)) * (x.zero - isa.element.offset)
    packed_bias, multiplier = pack_sums(isa, weight, bias, x, weight_scale, unit)
    outside = pack_per_channel(isa, of_row.T.astype(np.int32))
    return [np.ascontiguousarray(together), packed_bias, outside, multiplier]


class StemBytes:
    """The ending of the convolution of the image; a `Maker`. Parameters: `image`, `codes` of the
    output and of what the convolution reads, `weight` (O/c, k, 3, c * 4), `bias` (O/c, c),
    `outside` (O/c, k, c), what a row of the kernel adds that lies outside the image, `multiplier`
    (O/c, c), and for a uint8 image `normalisation` (2, 3, c)."""

    def __init__(self, isa: Isa, f: ir.PrimFuncBuilder, op: Stem, tile: Tile) -> None:
        self.isa, self.op, self.tile, self.window = isa, op, tile, window_of(op)
        blocks, c, element = isa.blocks(op.cout), isa.lanes, isa.element
        uint8 = op.source == "uint8_nhwc"
        if uint8:
            self._image = f.param("image", (1, op.height, op.width, CHANNELS), "uint8")
        else:
            self._image = f.param("image", (1, CHANNELS, op.height, op.width))
        self._codes = Codes(f, 2)
        self._ending = Ending(isa, op.act, self._codes[0])
        weights = (blocks, KERNEL, TAPS, c * GROUP)
        self._weight = f.param("weight", weights, element.stored_weights)
        self._bias = f.param("bias", (blocks, c), element.sums)
        self._outside = f.param("outside", (blocks, KERNEL, c), element.sums)
        self._multiplier = f.param("multiplier", (blocks, c))
        self._normalisation = f.param("normalisation", (2, 3, c)) if uint8 else None

    def start(self, first: ir.Expr, span: Span, chunk: Chunk) -> MakeRow:
        """As `Maker.start`."""
        ring = ByteImageRing(self.isa, self.op, self._image, self._normalisation, self._codes[1])

        def convolve(number: ir.Expr, keep: Keep) -> None:
            self._convolve(ring, number, span, chunk, keep)

        return over_image(ring, self.op.height, first, convolve)

    def whole_row(self) -> tuple[Span, Chunk]:
        """What to ask for where every column of every channel is wanted."""
        return whole_row(self.isa, self.op)

    def _convolve(
        self, ring: ByteImageRing, number: ir.Expr, span: Span, chunk: Chunk, keep: Keep
    ) -> None:
        top = ir.bind(number * STRIDE - 1)
        low, high = row_bounds(KERNEL, 1, self.window.height, top)
        c, sums = self.isa.lanes, self.isa.element.sums
        start = ir.Registers(self.tile.ob, c, sums)

        def group(block: ir.Expr, ob: int) -> None:
            first = chunk.first + block
            for o in range(ob):
                start[o] = ir.load(self._bias, first + o, 0, lanes=c)
            for rows in ((0, low), (high, KERNEL)):
                with ir.loop(*rows) as ky:
                    for o in range(ob):
                        start[o] = start[o] + ir.load(self._outside, first + o, ky, 0, lanes=c)

            def tile(begin: ir.Expr, px: int) -> None:
                acc = ir.Registers(px * ob, c, sums)
                for p in range(px):
                    for o in range(ob):
                        acc[p * ob + o] = start[o]
                with ir.loop(low, high) as ky:
                    self._add_row(acc, ring, top, ky, first, ob, begin, px)
                self._finish(acc, first, block, ob, begin, px, keep)

            if span.whole:
                ir.over_tiles(span.width, min(self.tile.px, span.width), tile)
            else:
                px = min(self.tile.px, span.inside)
                span.over_tiles(px, lambda begin: tile(begin, px))

        ir.over_tiles(chunk.blocks, self.tile.ob, group)

    def _add_row(
        self, acc: ir.Registers, ring: ByteImageRing, top: ir.Expr, ky: ir.Expr, first: ir.Expr,
        ob: int, begin: ir.Expr, px: int,
    ) -> None:  # fmt: skip
        c, element = self.isa.lanes, self.isa.element
        for number in range(TAPS):
            weights = [
                ir.bind(element.weights(self._weight, first + o, ky, number, lanes=c))
                for o in range(ob)
            ]
            for p in range(px):
                operand = ring.operand(top + ky, (begin + p) * STRIDE, number)
                value = ir.bind(element.spread(operand, c))
                for o in range(ob):
                    at = p * ob + o
                    acc[at] = element.dot(acc[at], weights[o], value, c)

    def _finish(
        self, acc: ir.Registers, first: ir.Expr, block: ir.Expr, ob: int, begin: ir.Expr, px: int,
        keep: Keep,
    ) -> None:  # fmt: skip
        c, run, start = self.isa.lanes, self.isa.element.run, self._ending.start
        added = ir.const(0, c) if start is None else start
        for o in range(ob):
            multiplier = ir.bind(ir.load(self._multiplier, first + o, 0, lanes=c))
            for p in range(0, px, run):
                values = [
                    ir.fma(ir.cast(acc[q * ob + o], "float32", c), multiplier, added, c)
                    for q in range(p, min(p + run, px))
                ]
                keep(block + o, begin + p, *self._ending.apply(*values))
