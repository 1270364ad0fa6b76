"""Dense convolution of any window on bytes, tap by tap: sums over four channels at once.

A task has some rows and columns of the output. It copies what they read, with the zero point around
it, unless every tap lies inside; then each register tile sums over channels and taps.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy import ir
from deploy.cpu.convolution import Grouping, Phase, pack_dense, phases_of
from deploy.cpu.isa import Isa, Tile
from deploy.cpu.kernels import conv_direct
from deploy.cpu.kernels.conv_direct import divided, lookup
from deploy.cpu.layout import Array
from deploy.cpu.rows.band_bytes import BandInPlace, ByteBand, CopiedBand, ImageBand
from deploy.cpu.rows.codes import Codes
from deploy.cpu.rows.epilogue import Epilogue, Place, pack_steps
from deploy.cpu.rows.maps import Map, output_map
from deploy.cpu.rows.sums import Sums, unit_of_sums
from deploy.cpu.scales import codes, pack_per_channel, pack_sums, reading, writing
from deploy.cpu.tiles import over_lanes
from deploy.grid import Grid, Scales
from lut.ops import CHANNELS, Conv

_FLOAT_BYTES = 4


@dataclass(frozen=True)
class ConvInt8Schedule:
    """Register tile, of how many rows it is, and the rows and columns of a task's output."""

    tile: Tile
    tile_rows: int
    rows: int
    columns: int


def supports(op: Conv) -> bool:
    """One map in 8 bits whose groups are wide enough for four channels at a time, or the image, and
    no strides where there are zeros between the input's elements."""
    whole = op.dtype == "int8" and len(op.cin) == 1
    plain = op.stride == (1, 1) or op.spread == (1, 1)
    return whole and plain and (op.groups == 1 or op.cin[0] // op.groups >= 4)


def default_schedule(op: Conv, isa: Isa, threads: int = 2) -> ConvInt8Schedule:
    """As in float32, of which four times as much stays in the caches."""
    more = replace(isa, l2_bytes=isa.l2_bytes * _FLOAT_BYTES // isa.element.bytes)
    rule = conv_direct.default_schedule(op, more, threads)
    return ConvInt8Schedule(rule.tile, rule.tile_rows, rule.rows, rule.columns)


def pack(
    op: Conv, isa: Isa, weight: Array, bias: Array, steps: list[Array],
    normalisation: dict[str, Any] | None = None, *, scales: Scales,
) -> list[NDArray[Any]]:  # fmt: skip
    """Constants in call order, with `scales` of x (the normalised image, which is never written)
    and of the steps' maps, and of y: an image's normalisation to quanta (2, c), codes of y and x,
    codes of the steps' maps, weight (O/c, K, c * 4), bias (P, O/c, c) of each of the plain
    convolutions that a transposed one is, multiplier (O/c, c), the steps' vectors."""
    x, *others = scales.inputs
    unit = unit_of_sums(op, scales.output)
    grouping = Grouping(isa, op)
    group, (cin,) = isa.element.group, grouping.cin
    dense = grouping.dense(np.asarray(weight, np.float32))
    wide = -(-cin // group) * group
    padded = np.pad(dense, ((0, 0), (0, wide - cin), (0, 0), (0, 0)))
    packed = pack_dense(isa, padded, (wide,), phases_of(op))
    whole = np.asarray(weight, np.int8)
    _, multiplier = pack_sums(isa, whole, bias, x, scales.weights[0], unit)
    image = [_to_quanta(isa, x, **normalisation)] if normalisation else []
    return [
        *image,
        codes(writing(scales.output), writing(x), *[reading(other, unit) for other in others]),
        isa.element.pack_weights(packed),
        _biases(op, isa, np.asarray(weight), bias, x),
        multiplier,
        *pack_steps(isa, steps),
    ]


def _to_quanta(
    isa: Isa, x: Grid, scale: float = 1 / 255, mean: Sequence[float] | NDArray[Any] = (0.0,) * 3,
    std: Sequence[float] | NDArray[Any] = (1.0,) * 3,
) -> NDArray[np.float32]:  # fmt: skip
    """Factors and shifts (2, c) of interleaved pixels of four channels, the last of which becomes
    what is in it."""
    wide = np.asarray(std, np.float64) * x.scale
    factor, shift = scale / wide, x.zero - np.asarray(mean, np.float64) / wide
    both = np.stack([factor, shift])[:, [0, 1, 2, 2]]
    return np.tile(both, (1, isa.lanes // 4)).astype(np.float32)


def _biases(
    op: Conv, isa: Isa, weight: NDArray[Any], bias: NDArray[Any], x: Grid
) -> NDArray[np.int32]:
    """(P, O/c, c): of each plain convolution, with what the zero point asks for of its taps."""
    packed = []
    for phase in phases_of(op):
        for i, j in np.ndindex(len(phase.rows.offsets), len(phase.columns.offsets)):
            taps = weight[:, :, phase.rows.taps(i)][:, :, :, phase.columns.taps(j)]
            total = taps.astype(np.int64).sum((1, 2, 3))
            value = bias.astype(np.int64) - (x.zero - isa.element.offset) * total
            packed.append(pack_per_channel(isa, value.astype(np.int32)))
    return np.stack(packed)


def emit(op: Conv, schedule: ConvInt8Schedule, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(x, other maps, constants, y)."""

    def signature(f: ir.PrimFuncBuilder) -> Callable[[], None]:
        return _Kernel(op, schedule, isa, f).body

    return ir.prim_func("conv", signature)


@dataclass(frozen=True)
class Part:
    """One of the plain convolutions: where its weights begin, and its number."""

    weights: ir.Expr
    number: ir.Expr


class _Kernel:
    def __init__(
        self, op: Conv, schedule: ConvInt8Schedule, isa: Isa, f: ir.PrimFuncBuilder
    ) -> None:
        self.op, self.schedule, self.isa = op, schedule, isa
        self.grouping, self.phases = Grouping(isa, op), phases_of(op)
        element, c, blocks = isa.element, isa.lanes, isa.blocks(op.cout)
        self.image: ir.Buffer = None
        self.x: Map | None = None
        uint8 = op.source == "uint8_nhwc"
        if op.source == "maps":
            self.x = Map(isa, f, "x", op.cin[0], op.height, op.width)
        elif uint8:
            self.image = f.param("image", (1, op.height, op.width, CHANNELS), "uint8")
        else:
            self.image = f.param("image", (1, CHANNELS, op.height, op.width))
        self.epilogue = Epilogue(isa, op.then, op.output)
        self.epilogue.operands(f)
        self.normalisation = f.param("normalisation", (2, c)) if uint8 else None
        self.codes = Codes(f, 2 + len(self.epilogue.maps))
        self.epilogue.take(self.codes[0] if not op.wide else None, self.codes, 2)
        self.steps = -(-self.grouping.cin[0] // element.group)  # of a tap, over the channels
        window = sum(phase.taps * phase.count for phase in self.phases)
        shape = blocks, max(1, self.steps * window), c * element.group
        self.weight = f.param("weight", shape, element.stored_weights)
        count = sum(phase.count for phase in self.phases)
        self.bias = f.param("bias", (count, blocks, c), element.sums)
        self.multiplier = f.param("multiplier", (blocks, c))
        self.epilogue.constants(f)
        self.y = output_map(isa, f, op)

    def body(self) -> None:
        phases = self.phases
        if conv_direct.is_pointwise(self.op):
            phases = [conv_direct.as_row(self.op, phases[0])]
            assert self.x is not None
            self.x = self.x.as_row()
            self.epilogue.as_row()
            self.y = self.y.as_row()
        self.finish = Sums(self.op, self.isa, self.epilogue, self.codes, self.multiplier, self.y)
        sizes = [
            [size for phase in phases for size in getattr(phase, axis).sizes]
            for axis in ("rows", "columns")
        ]
        rows = min(self.schedule.rows, *sizes[0])
        columns = min(self.schedule.columns, *sizes[1])
        bands, strips = -(-max(sizes[0]) // rows), -(-max(sizes[1]) // columns)
        with ir.parallel(0, bands * strips) as task:
            at = number = 0  # in the weights, and of the convolution
            for phase in phases:
                every = self.steps * phase.taps
                with ir.serial(0, phase.count) as pair:
                    corner = (task // strips * rows, task % strips * columns)
                    part = Part(ir.bind(at + pair * every), ir.bind(number + pair))
                    self._phase(phase, part, pair, corner, (rows, columns))
                at += every * phase.count
                number += phase.count

    def _phase(
        self, phase: Phase, at: Part, pair: ir.Expr, corner: Place, size: tuple[int, int]
    ) -> None:
        """A task's part of one convolution."""
        axes, remainders = (phase.rows, phase.columns), divided(pair, len(phase.columns.offsets))
        top_left, offsets = [], []
        for axis, remainder, begin, outputs in zip(axes, remainders, corner, size, strict=True):
            # The last task overlaps instead of being smaller: the same values are written twice.
            first = ir.bind(ir.minimum(begin, lookup(axis.sizes, remainder) - outputs))
            top_left.append(ir.bind(first * axis.stride - lookup(axis.pads, remainder)))
            offsets.append(ir.bind(first * axis.step + lookup(axis.offsets, remainder)))
        blocks = self.isa.blocks(self.grouping.cin[0])
        band = self._band(phase, size, blocks)
        with ir.serial(0, self.grouping.groups) as group:
            band.fill(top_left[0], top_left[1], group * blocks)

            def tiles(first: ir.Expr, ob: int, group: ir.Expr = group) -> None:
                out = ir.bind(group * self.grouping.blocks + first)
                self._tiles(phase, at, band, (offsets[0], offsets[1]), size, out, ob)

            ir.over_tiles(self.grouping.blocks, self.schedule.tile.ob, tiles)

    def _band(self, phase: Phase, size: tuple[int, int], blocks: int) -> ByteBand:
        reach, x = (phase.rows.reach(size[0]), phase.columns.reach(size[1])), self.x
        if x is None:
            return ImageBand(self.isa, self.image, self.normalisation, reach, self.codes[1])
        if phase.rows.inside(x.height) and phase.columns.inside(x.width):
            return BandInPlace(x)
        return CopiedBand(x, reach, blocks, self.codes[1].zero())

    def _tiles(
        self, phase: Phase, at: Part, band: ByteBand, corner: Place, size: tuple[int, int],
        out: ir.Expr, ob: int,
    ) -> None:  # fmt: skip
        """Every pixel of a task, of ob output blocks from `out` on."""
        high, c = min(self.schedule.tile_rows, size[0]), self.isa.lanes
        wide = min(self.schedule.tile.px, size[1])
        with ir.serial(0, -(-size[0] // high)) as i, ir.serial(0, -(-size[1] // wide)) as j:
            row = ir.bind(ir.minimum(i * high, size[0] - high))
            column = ir.bind(ir.minimum(j * wide, size[1] - wide))
            places = [(row + y, column + x) for y in range(high) for x in range(wide)]
            acc = ir.Registers(len(places) * ob, c, self.isa.element.sums)
            for number in range(len(places) * ob):
                acc[number] = ir.load(self.bias, at.number, out + number % ob, 0, lanes=c)
            if phase.taps:
                self._reduce(phase, at.weights, band, places, acc, out, ob)
            place = (
                ir.bind(corner[0] + row * phase.rows.step),
                ir.bind(corner[1] + column * phase.columns.step),
            )
            step = phase.rows.step, phase.columns.step
            self.finish.store(acc, place, (high, wide), step, out, ob)

    def _reduce(
        self, phase: Phase, at: ir.Expr, band: ByteBand, places: list[tuple[ir.Expr, ir.Expr]],
        acc: ir.Registers, out: ir.Expr, ob: int,
    ) -> None:  # fmt: skip
        """Add the products of all channels and taps."""
        c, rows, columns, element = self.isa.lanes, phase.rows, phase.columns, self.isa.element
        full, tail = divmod(self.grouping.cin[0], c)

        def taps(block: ir.Expr, base: ir.Expr, lanes: int) -> None:
            steps = -(-lanes // element.group)
            with ir.serial(0, rows.kernel) as ky, ir.serial(0, columns.kernel) as kx:
                tap = ir.bind(base + (ky * columns.kernel + kx) * steps)

                def step(lane: ir.Expr) -> None:
                    number = tap + lane // element.group
                    weights = [
                        ir.bind(element.weights(self.weight, out + o, number, lanes=c))
                        for o in range(ob)
                    ]
                    for p, (y, x) in enumerate(places):
                        operand = band.operand(
                            block,
                            y * rows.stride + ky * rows.dilation,
                            x * columns.stride + kx * columns.dilation,
                            lane,
                        )
                        value = ir.bind(element.spread(operand, c))
                        for o in range(ob):
                            now = p * ob + o
                            acc[now] = element.dot(acc[now], weights[o], value, c)

                over_lanes(lanes, element.group, step)

        if full:
            with ir.serial(0, full) as block:
                taps(block, at + block * (phase.taps * c // element.group), c)
        if tail:
            taps(full, at + full * (phase.taps * c // element.group), tail)
