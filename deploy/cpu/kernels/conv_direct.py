"""Dense convolution of any window, tap by tap, on blocked activations or the image.

A task has some rows and columns of the output. It copies what they read, with zeros around it
(`Band`), unless every tap lies inside; then each register tile sums over channels and taps, the
weights of one tile's output channels going over all pixels of the task before the next ones'. Where
these weights are too many for L2, those of some input channels do so at a time, and the sums so far
wait in memory.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy import ir
from deploy.cpu.convolution import Grouping, Phase, pack_dense, phases_of, products_of
from deploy.cpu.isa import Isa, Tile, best_tile
from deploy.cpu.layout import Array, pack_normalisation, pack_vector
from deploy.cpu.rows.band import Band, InPlace, Inputs
from deploy.cpu.rows.epilogue import Epilogue, Place, pack_steps
from deploy.cpu.rows.maps import Map
from deploy.cpu.tiles import LONG, PART, WEIGHTS_AHEAD, sum_in_parts
from lut.ops import Conv


@dataclass(frozen=True)
class ConvDirectSchedule:
    """Register tile, of how many rows it is, the rows and columns of a task's output, and how many
    input blocks are summed over all its pixels before the next ones (0: all)."""

    tile: Tile
    tile_rows: int
    rows: int
    columns: int
    chunk: int = 0


def supports(op: Conv) -> bool:
    """Not with strides where there are zeros between the input's elements, nor with groups of
    concatenated maps."""
    plain = op.stride == (1, 1) or op.spread == (1, 1)
    return plain and (op.groups == 1 or len(op.cin) == 1)


def default_schedule(op: Conv, isa: Isa, threads: int = 2) -> ConvDirectSchedule:
    """Tasks whose input stays in half of L2, as many as the threads share evenly."""
    phase = as_row(op, phases_of(op)[0])
    blocks = Grouping(isa, op).blocks
    height, width = phase.rows.size, phase.columns.size
    # A narrow map's tiles take two or more rows, so that they fill the registers.
    tile_rows = 1
    if width < 8 and height > 1:
        tile_rows = min(height, max(1, 12 // width))
    columns = width
    channels = sum(isa.blocks(c) for c in Grouping(isa, op).cin) * isa.lanes
    element = products_of(isa, op)

    def band_bytes(rows: int, columns: int) -> int:
        return element.bytes * channels * phase.rows.reach(rows) * phase.columns.reach(columns)

    budget, floor = isa.l2_bytes // 2, 32
    while columns > floor and band_bytes(tile_rows, columns) > budget:
        columns = -(-columns // 2)
    if is_pointwise(op):  # one row, which only strips are shared by
        strips = -(-width // columns)
        columns = -(-width // min(width, strips + -strips % threads))
    strips = -(-width // columns)
    # The last band overlaps the one before it, and threads wait for the slowest: the number of rows
    # that costs least by that, and by the rows that bands have in common.
    shared = phase.rows.reach(1) - phase.rows.stride

    def cost(rows: int) -> float:
        rounds = -(-(-(-height // rows)) * strips // threads)
        return rounds * (rows + 0.02 * shared)

    fitting = [r for r in range(1, height + 1) if band_bytes(r, columns) <= budget]
    whole = [r for r in fitting if r % tile_rows == 0] or [min(tile_rows, height)]
    rows = min(whole, key=lambda r: (cost(r), -r))
    tile = best_tile(isa, tile_rows * columns, blocks)
    px = max(1, min(tile.px // tile_rows, columns))
    px = -(-columns // -(-columns // px))
    chunk = _chunk(op, isa, tile.ob)
    return ConvDirectSchedule(Tile(px, tile.ob), tile_rows, rows, columns, chunk)


def _chunk(op: Conv, isa: Isa, ob: int) -> int:
    """Where the weights for `ob` output blocks are more than half of L2, which the input has the
    other half of: input blocks with at most a quarter of it, equal parts of all. Else 0, and where
    there are several maps or phases."""
    grouping, phases, c = Grouping(isa, op), phases_of(op), isa.lanes
    blocks, tail = divmod(grouping.cin[0], c)
    if tail or len(grouping.cin) > 1 or len(phases) > 1:
        return 0
    element = products_of(isa, op)
    block_bytes = element.bytes * phases[0].taps * c * c * ob
    if blocks * block_bytes <= isa.l2_bytes // 2:
        return 0
    most = isa.l2_bytes // 4 // block_bytes
    each = _blocks_a_sum(phases[0].taps * c)
    fitting = [n for n in range(1, most + 1) if blocks % n == 0 and n % each == 0]
    return max(fitting, default=0)


def _blocks_a_sum(terms: int) -> int:
    """Input blocks of so many terms of a part of a long sum."""
    return max(1, PART // max(1, terms))


def pack(
    op: Conv, isa: Isa, weight: Array, bias: Array, steps: list[Array],
    normalisation: dict[str, Any] | None = None,
) -> list[NDArray[Any]]:  # fmt: skip
    """Constants in call order: an image's normalisation (2, 3, c), weight (O/c, K, c * g) as
    `pack_dense` has it, bias (O/c, c), the steps' vectors."""
    grouping = Grouping(isa, op)
    element = products_of(isa, op)
    packed = pack_dense(isa, grouping.dense(weight), grouping.cin, phases_of(op), element)
    image = [pack_normalisation(isa, **normalisation)] if normalisation else []
    return [*image, packed, pack_vector(isa, np.asarray(bias)), *pack_steps(isa, steps)]


def emit(op: Conv, schedule: ConvDirectSchedule, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(inputs, other maps, constants, y)."""

    def signature(f: ir.PrimFuncBuilder) -> Callable[[], None]:
        kernel = _Kernel(op, schedule, isa, f)
        return kernel.body

    return ir.prim_func("conv", signature)


class _Kernel:
    def __init__(
        self, op: Conv, schedule: ConvDirectSchedule, isa: Isa, f: ir.PrimFuncBuilder
    ) -> None:
        self.op, self.schedule, self.isa = op, schedule, isa
        self.grouping, self.phases = Grouping(isa, op), phases_of(op)
        self.inputs = Inputs(isa, f, op)
        self.epilogue = Epilogue(isa, op.then, op.output)
        self.epilogue.operands(f)
        self.inputs.constants(f)
        blocks, window = isa.blocks(op.cout), sum(p.taps * p.count for p in self.phases)
        self.element = self.inputs.element
        self.steps = self.grouping.steps(self.element)
        shape = blocks, sum(self.steps) * window, isa.lanes * self.element.group
        self.weight = f.param("weight", shape, self.element.stored_weights)
        self.bias = f.param("bias", (blocks, isa.lanes))
        self.epilogue.constants(f)
        self.y = Map(isa, f, "y", *op.output)
        if schedule.chunk and (len(self.grouping.cin) > 1 or len(self.phases) > 1):
            raise ValueError("only one map is summed in chunks of its channels, of one phase")
        terms = self.phases[0].taps * isa.lanes
        each, (blocks, tail) = _blocks_a_sum(terms), divmod(self.grouping.cin[0], isa.lanes)
        if schedule.chunk and (tail or blocks % schedule.chunk or schedule.chunk % each):
            raise ValueError(f"chunks of {schedule.chunk} blocks do not divide {blocks}")
        self.chunks = blocks // schedule.chunk if schedule.chunk else 1

    def body(self) -> None:
        phases = self.phases
        if is_pointwise(self.op):
            phases = [as_row(self.op, phases[0])]
            self.inputs.as_row()
            self.epilogue.as_row()
            self.y = self.y.as_row()
        # A part of the input is read by all phases while it is in the cache.
        sizes = [
            [size for phase in phases for size in getattr(phase, axis).sizes]
            for axis in ("rows", "columns")
        ]
        rows = min(self.schedule.rows, *sizes[0])
        columns = min(self.schedule.columns, *sizes[1])
        bands, strips = -(-max(sizes[0]) // rows), -(-max(sizes[1]) // columns)
        with ir.parallel(0, bands * strips) as task:
            at = 0  # in the weights
            for phase in phases:
                every = sum(self.steps) * phase.taps
                with ir.serial(0, phase.count) as pair:
                    corner = (task // strips * rows, task % strips * columns)
                    self._phase(phase, ir.bind(at + pair * every), pair, corner, (rows, columns))
                at += every * phase.count

    def _phase(
        self, phase: Phase, at: ir.Expr, pair: ir.Expr, corner: Place, size: tuple[int, int]
    ) -> None:
        """A task's part of one convolution, whose weights begin `at`."""
        axes, remainders = (phase.rows, phase.columns), divided(pair, len(phase.columns.offsets))
        first, top_left, offsets = [], [], []
        for axis, remainder, begin, outputs in zip(axes, remainders, corner, size, strict=True):
            # The last task overlaps instead of being smaller: the same values are written twice.
            last = lookup(axis.sizes, remainder) - outputs
            first.append(ir.bind(ir.minimum(begin, last)))
            top_left.append(ir.bind(first[-1] * axis.stride - lookup(axis.pads, remainder)))
            offsets.append(ir.bind(first[-1] * axis.step + lookup(axis.offsets, remainder)))
        band = self._band(phase, *size)
        with ir.serial(0, self.grouping.groups) as group:
            blocks = sum(self.isa.blocks(c) for c in self.grouping.cin)
            band.fill(top_left[0], top_left[1], group * blocks)

            def tiles(first: ir.Expr, ob: int, group: ir.Expr = group) -> None:
                out = ir.bind(group * self.grouping.blocks + first)
                self._tiles(phase, at, band, (offsets[0], offsets[1]), size, out, ob)

            ir.over_tiles(self.grouping.blocks, self.schedule.tile.ob, tiles)

    def _band(self, phase: Phase, rows: int, columns: int) -> Band:
        inside = phase.rows.inside(self._height) and phase.columns.inside(self._width)
        if self.inputs.maps and inside:
            return InPlace(self.inputs.maps)
        size = phase.rows.reach(rows), phase.columns.reach(columns)
        grouped = self.grouping.groups > 1
        return self.inputs.band(size, self.isa.blocks(self.grouping.cin[0]) if grouped else None)

    @property
    def _height(self) -> int:
        return self.inputs.maps[0].height if self.inputs.maps else self.op.height

    @property
    def _width(self) -> int:
        return self.inputs.maps[0].width if self.inputs.maps else self.op.width

    def _tiles(
        self, phase: Phase, at: ir.Expr, band: Band, corner: Place,
        size: tuple[int, int], out: ir.Expr, ob: int,
    ) -> None:  # fmt: skip
        """Every pixel of a task, of ob output blocks from `out` on."""
        high = min(self.schedule.tile_rows, size[0])
        wide = min(self.schedule.tile.px, size[1])
        down, across = -(-size[0] // high), -(-size[1] // wide)
        count, c, chunks = high * wide * ob, self.isa.lanes, self.chunks
        waiting = ir.scratch(down * across * count * c) if chunks > 1 else None
        with ir.serial(0, chunks) as chunk, ir.serial(0, down) as i, ir.serial(0, across) as j:
            row = ir.bind(ir.minimum(i * high, size[0] - high))
            column = ir.bind(ir.minimum(j * wide, size[1] - wide))
            places = [(row + y, column + x) for y in range(high) for x in range(wide)]
            acc = ir.Registers(count, c)
            here = ir.bind((i * across + j) * (count * c))

            def fresh(acc: ir.Registers = acc) -> None:
                for number in range(count):
                    acc[number] = ir.load(self.bias, out + number % ob, 0, lanes=c)

            def so_far(acc: ir.Registers = acc, here: ir.Expr = here) -> None:
                for number in range(count):
                    acc[number] = ir.load(waiting, here + number * c, lanes=c)

            def wait(acc: ir.Registers = acc, here: ir.Expr = here) -> None:
                for number in range(count):
                    ir.store(waiting, acc[number], here + number * c, lanes=c)

            def finish(
                acc: ir.Registers = acc, row: ir.Expr = row, column: ir.Expr = column
            ) -> None:
                place = (
                    ir.bind(corner[0] + row * phase.rows.step),
                    ir.bind(corner[1] + column * phase.columns.step),
                )
                step = phase.rows.step, phase.columns.step
                self.epilogue.store(self.y, acc, place, (high, wide), step, out, ob)

            if waiting is None:
                fresh()
            else:
                _either(chunk == 0, fresh, so_far)
            if phase.taps:
                self._reduce(phase, at, band, places, acc, out, ob, chunk)
            if waiting is None:
                finish()
            else:
                _either(chunk == chunks - 1, finish, wait)

    def _reduce(
        self, phase: Phase, at: ir.Expr, band: Band, places: list[tuple[ir.Expr, ir.Expr]],
        acc: ir.Registers, out: ir.Expr, ob: int, chunk: ir.Expr,
    ) -> None:  # fmt: skip
        """Add the products of a chunk's channels and all taps; long sums in parts
        (`deploy.cpu.tiles`), the same ones whatever the chunks are."""
        c, rows, columns, element = self.isa.lanes, phase.rows, phase.columns, self.element
        # What bfloat16 loses in a long sum is little beside what its operands have lost.
        long = element.group == 1 and sum(self.grouping.cin) * phase.taps > LONG

        def channels(part: int, block: ir.Expr, base: ir.Expr, lanes: int) -> None:
            def row(ky: ir.Expr) -> None:
                taps(part, block, base, lanes, ky)

            if long and lanes * phase.taps > LONG:
                each = max(1, PART // (columns.kernel * lanes))
                sum_in_parts(acc, len(places) * ob, c, rows.kernel, each, row)
            else:
                with ir.serial(0, rows.kernel) as ky:
                    row(ky)

        def taps(part: int, block: ir.Expr, base: ir.Expr, lanes: int, ky: ir.Expr) -> None:
            with ir.serial(0, columns.kernel) as kx:
                steps = -(-lanes // element.group)
                tap = ir.bind(base + (ky * columns.kernel + kx) * steps)
                with ir.serial(0, steps) as step:
                    for o in range(ob):
                        ir.prefetch(self.weight, out + o, tap + step + WEIGHTS_AHEAD, 0)
                    weights = [
                        ir.bind(element.weights(self.weight, out + o, tap + step, lanes=c))
                        for o in range(ob)
                    ]
                    for p, (y, x) in enumerate(places):
                        value = band.operand(
                            part,
                            block,
                            y * rows.stride + ky * rows.dilation,
                            x * columns.stride + kx * columns.dilation,
                            step * element.group,
                        )
                        value = ir.bind(element.spread(value, c))
                        for o in range(ob):
                            sums = p * ob + o
                            acc[sums] = element.dot(acc[sums], weights[o], value, c)

        for part, cin in enumerate(self.grouping.cin):
            full, tail = divmod(cin, c)
            first: ir.Expr = 0
            if self.chunks > 1:
                full, first = self.schedule.chunk, ir.bind(chunk * self.schedule.chunk)

            def whole(
                number: ir.Expr, part: int = part, at: ir.Expr = at, first: ir.Expr = first
            ) -> None:
                block = first + number
                channels(part, block, at + block * (phase.taps * c // element.group), c)

            if full and long and c * phase.taps <= LONG:
                each = _blocks_a_sum(c * phase.taps)
                sum_in_parts(acc, len(places) * ob, c, full, each, whole)
            elif full:
                with ir.serial(0, full) as block:
                    whole(block)
            if tail:
                channels(part, full, at + full * (phase.taps * c // element.group), tail)
            at += self.steps[part] * phase.taps


def is_pointwise(op: Conv) -> bool:
    """Whether every output is made of one pixel."""
    alone = op.kernel == op.stride == op.spread == (1, 1) and not any(op.pad)
    return alone and op.source == "maps"


def as_row(op: Conv, phase: Phase) -> Phase:
    """A 1x1 convolution knows of no rows."""
    if not is_pointwise(op):
        return phase
    pixels = phase.rows.size * phase.columns.size
    return Phase(replace(phase.rows, sizes=(1,)), replace(phase.columns, sizes=(pixels,)))


def _either(condition: ir.Expr, then: Callable[[], None], otherwise: Callable[[], None]) -> None:
    with ir.when(condition):
        with ir.then():
            then()
        with ir.otherwise():
            otherwise()


def divided(index: ir.Expr, by: int) -> Place:
    """Quotient and remainder."""
    return index // by, index % by


def lookup(values: tuple[int, ...], index: ir.Expr) -> ir.Expr:
    """values[index], of an index known when the kernel runs."""
    found: ir.Expr = values[0]
    for place in range(1, len(values)):
        if values[place] != values[place - 1]:
            found = ir.select(index >= place, values[place], found)
    steps = {b - a for a, b in pairwise(values)}
    return values[0] + index * steps.pop() if len(steps) == 1 else found
