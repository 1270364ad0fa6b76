"""The first 3x3 convolution at stride 2, straight from the camera's image.

From a uint8 NHWC image, the scale and the mean and std of the normalisation are applied while a
row is brought into a small ring of float rows. The network pads with zeros after normalising:
columns outside the image are zero in the ring, rows outside are left out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy import ir
from deploy.cpu.isa import Isa, Tile, best_tile
from deploy.cpu.kernels.depthwise_tile import row_bounds, window_of
from deploy.cpu.layout import Array, activation_shape, pack_vector
from lut.ops import CHANNELS, Stem
from lut.ops import STEM_KERNEL as KERNEL
from lut.ops import STEM_STRIDE as STRIDE


@dataclass(frozen=True)
class StemSchedule:
    """Register tile and row ranges (parallel)."""

    tile: Tile
    row_tasks: int


def default_schedule(op: Stem, isa: Isa, threads: int = 2) -> StemSchedule:
    """One range of rows per thread. At most 16 accumulators: the addresses of the strided pixels
    take registers too, and a larger tile spills (105 against 206 GFLOP/s with AVX-512)."""
    window = window_of(op)
    tile = best_tile(isa, window.out_width, isa.blocks(op.cout))
    tile = Tile(max(1, min(tile.px, 16 // tile.ob)), tile.ob)
    return StemSchedule(tile, min(threads, window.out_height))


def pack(
    op: Stem,
    isa: Isa,
    weight: Array,
    bias: Array,
    *,
    scale: float = 1 / 255,
    mean: Sequence[float] | NDArray[np.float64] = (0.0, 0.0, 0.0),
    std: Sequence[float] | NDArray[np.float64] = (1.0, 1.0, 1.0),
) -> list[NDArray[Any]]:
    """Constants in call order: weight (O/c, k*k*3, c), bias, and for uint8 the normalisation.

    A pixel v of a channel becomes (v * scale - mean) / std = v * factor + shift; the factors and
    shifts (2, 3, c) repeat with the channels over three vectors of interleaved pixels.
    """
    out, c = weight.shape[0], isa.lanes
    taps = np.zeros((isa.blocks(out) * c, KERNEL**2 * CHANNELS), np.float32)
    taps[:out] = weight.transpose(0, 2, 3, 1).reshape(out, -1)
    blocked = np.ascontiguousarray(taps.reshape(-1, c, taps.shape[1]).transpose(0, 2, 1))
    packed: list[NDArray[Any]] = [blocked, pack_vector(isa, bias)]
    if op.source == "uint8_nhwc":
        channel = np.arange(3 * c) % 3
        factor = (scale / np.asarray(std))[channel]
        shift = (-np.asarray(mean) / np.asarray(std))[channel]
        packed.append(np.stack([factor, shift]).reshape(2, 3, c).astype(np.float32))
    return packed


class StemRows:
    """The code that makes rows of the convolution, over the parameters that it declares."""

    def __init__(self, op: Stem, tile: Tile, isa: Isa, f: ir.PrimFuncBuilder) -> None:
        self.op, self.tile, self.isa = op, tile, isa
        self.blocks = isa.blocks(op.cout)
        self.interleaved = op.source == "uint8_nhwc"
        # One zero column left of the image, and as many right as the last output reaches.
        padded = max(op.width + 1, STRIDE * window_of(op).out_width + 1)
        self.row_floats = CHANNELS * padded
        # Where (column of the padded row, channel) lies in a ring row.
        self.step_column, self.step_channel = (CHANNELS, 1) if self.interleaved else (1, padded)
        if self.interleaved:
            self.image = f.param("image", (1, op.height, op.width, CHANNELS), "uint8")
        else:
            self.image = f.param("image", (1, CHANNELS, op.height, op.width))
        self.weight = f.param("weight", (self.blocks, KERNEL**2 * CHANNELS, isa.lanes))
        self.bias = f.param("bias", (self.blocks, isa.lanes))
        self.affine = f.param("normalisation", (2, 3, isa.lanes)) if self.interleaved else None

    def start(self, first: ir.Expr) -> ir.Buffer:
        """A ring of image rows, for output rows from `first` on."""
        ring = ir.scratch(KERNEL * self.row_floats)
        with ir.serial(0, KERNEL * self.row_floats) as i:
            ir.store_scalar(ring, 0.0, i)
        with ir.when(first > 0), ir.then():
            self._fill(ring, first * STRIDE - 1)
        return ring

    def next_row(
        self,
        ring: ir.Buffer,
        row: ir.Expr,
        keep: Callable[[ir.Expr, ir.Expr, ir.Expr], None],
        span: tuple[ir.Expr, int, int] | None = None,
    ) -> None:
        """Output row `row`, each after the one before: keep(output block, column, vector).

        `span`, (first column, columns, how many of them at least lie inside the image), asks for
        part of a row.
        """
        end = ir.minimum(row * STRIDE + STRIDE, self.op.height)
        with ir.loop(row * STRIDE, end) as source:
            self._fill(ring, source)
        self._convolve(ring, row, keep, span)

    def _fill(self, ring: ir.Buffer, row: ir.Expr) -> None:
        """Image row `row` as normalised floats, with zeros on both sides, into the ring."""
        c, width = self.isa.lanes, self.op.width
        base = ir.bind((row % KERNEL) * self.row_floats)
        if not self.interleaved:
            with ir.serial(0, CHANNELS) as channel:

                def copy(begin: ir.Expr, size: int) -> None:
                    at = base + channel * self.step_channel + 1 + begin
                    value = ir.load(self.image, 0, channel, row, begin, lanes=size)
                    ir.store(ring, value, at, lanes=size)

                ir.over_tiles(width, c, copy)
            return
        flat = ir.view(self.image, (self.op.height, width * CHANNELS))

        def convert(begin: ir.Expr, size: int) -> None:
            # Whole pixels, so that lane i of every vector has the same channel in every turn.
            for part in range(-(-size * CHANNELS // c)):
                lanes = min(c, size * CHANNELS - part * c)
                start = begin * CHANNELS + part * c
                value = ir.cast(ir.load(flat, row, start, lanes=lanes), "float32", lanes)
                value = value * ir.load(self.affine, 0, part, 0, lanes=lanes)
                value = value + ir.load(self.affine, 1, part, 0, lanes=lanes)
                ir.store(ring, value, base + CHANNELS + start, lanes=lanes)

        ir.over_tiles(width, c, convert)

    def _convolve(
        self,
        ring: ir.Buffer,
        row: ir.Expr,
        keep: Callable[[ir.Expr, ir.Expr, ir.Expr], None],
        span: tuple[ir.Expr, int, int] | None,
    ) -> None:
        c, window = self.isa.lanes, window_of(self.op)
        top = ir.bind(row * STRIDE - 1)
        low, high = row_bounds(KERNEL, 1, window.height, top)

        def group(first: ir.Expr, ob: int) -> None:
            def tile(begin: ir.Expr, px: int) -> None:
                acc = ir.Registers(px * ob, c)
                for p in range(px):
                    for o in range(ob):
                        acc[p * ob + o] = ir.load(self.bias, first + o, 0, lanes=c)
                # One tap a step: with three unrolled, LLVM loads the weights of all of them
                # first and the accumulators no longer fit the registers.
                with (
                    ir.loop(low, high) as ky,
                    ir.serial(0, CHANNELS) as channel,
                    ir.serial(0, KERNEL) as kx,
                ):
                    base = ((top + ky) % KERNEL) * self.row_floats + channel * self.step_channel
                    tap = (ky * KERNEL + kx) * CHANNELS + channel
                    weights = [
                        ir.bind(ir.load(self.weight, first + o, tap, 0, lanes=c)) for o in range(ob)
                    ]
                    for p in range(px):
                        column = (begin + p) * STRIDE + kx
                        value = ir.bind(ir.splat(ring[base + column * self.step_column], c))
                        for o in range(ob):
                            acc[p * ob + o] = acc[p * ob + o] + weights[o] * value
                for p in range(px):
                    for o in range(ob):
                        keep(first + o, begin + p, ir.activate(acc[p * ob + o], self.op.act, c))

            if span is None:
                ir.over_tiles(window.out_width, min(self.tile.px, window.out_width), tile)
                return
            begin, columns, inside = span
            px = min(self.tile.px, inside)
            with ir.serial(0, -(-columns // px)) as t:
                most = ir.minimum(begin + columns, window.out_width) - px
                tile(ir.bind(ir.maximum(ir.minimum(begin + t * px, most), 0)), px)

        ir.over_tiles(self.blocks, self.tile.ob, group)


def emit(op: Stem, schedule: StemSchedule, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(image, weight, bias[, normalisation], y)."""
    window = window_of(op)

    def signature(f: ir.PrimFuncBuilder) -> Callable[[], None]:
        rows = StemRows(op, schedule.tile, isa, f)
        y = f.param("y", activation_shape(isa, op.cout, window.out_height, window.out_width))

        def body() -> None:
            with ir.parallel(0, schedule.row_tasks) as task:
                first = ir.bind(task * window.out_height // schedule.row_tasks)
                last = ir.bind((task + 1) * window.out_height // schedule.row_tasks)
                ring = rows.start(first)
                with ir.loop(first, last) as row:

                    def keep(block: ir.Expr, column: ir.Expr, value: ir.Expr) -> None:
                        ir.store(y, value, 0, block, row, column, 0, lanes=isa.lanes)

                    rows.next_row(ring, row, keep)

        return body

    return ir.prim_func("stem", signature)
