"""Dense convolution by Winograd's minimal filtering, on blocked activations.

A task has some tiles of outputs, all in the caches: their inputs are transformed, multiplied for
each of the transform's points as a 1x1 convolution is, some output channels at a time, and
transformed back with everything that follows. With a dilation of d the d * d maps of every d-th
row and column are convolved each by itself; a task has tiles of several where they are small, or it
would read all weights for one or two tiles.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from deploy import ir
from deploy.cpu import winograd_tiles
from deploy.cpu.isa import Isa, Tile, best_tile
from deploy.cpu.layout import Array, pack_vector
from deploy.cpu.rows.band import Inputs, MapBand
from deploy.cpu.rows.between import Between
from deploy.cpu.rows.epilogue import Epilogue, pack_steps
from deploy.cpu.rows.maps import output_map
from deploy.cpu.tiles import WEIGHTS_AHEAD, matmul_tile
from deploy.cpu.winograd_tiles import Axes, TileAxis, Transforms, transforms
from lut.ops import Conv

_WINDOWS = {(3, 3), (3, 1), (1, 3), (5, 5), (5, 1), (1, 5)}
_LANES = 16  # of the widest vectors
# What reading a task's weights takes, in tiles' products: from beyond L2, asked for in time, and
# from memory, which gives them no faster for that; and the weights that a cache keeps for the next
# task. Then the time of a task whose inputs, plain and transformed, are more than L2 holds.
_FAR, _FROM_MEMORY, _KEPT_BYTES = 2, 8, 4 << 20
_CROWDED = 1.1
_IN_REGISTERS = 16  # points of a tile


@dataclass(frozen=True)
class ConvWinogradSchedule:
    """Rows and columns of tiles of a task, on how many of a dilation's maps, register tile of the
    products, in how many parts the output channels are cut, and whether all channels are done for
    one point before the next, for inputs that L2 does not hold."""

    tile_rows: int
    tile_columns: int
    tile: Tile
    splits: int
    by_point: bool
    maps: int = 1


def supports(op: Conv) -> bool:
    """Windows of 3 and 5 taps at stride 1, of 3x3 at stride 2, where channels are enough to pay for
    the transforms; in groups where those of each fill vectors of every instruction set."""
    halving = (op.kernel, op.stride, op.dilation) == ((3, 3), (2, 2), (1, 1))
    plain = op.spread == (1, 1) and op.source == "maps" and not op.exact
    sides = sum(op.cin) // op.groups, op.cout // op.groups
    whole = op.groups == 1 or (len(op.cin) == 1 and all(side % _LANES == 0 for side in sides))
    dilated = all(d == 1 or k > 1 for d, k in zip(op.dilation, op.kernel, strict=True))
    wide = min(sides) >= 16
    return (
        plain
        and (halving or op.stride == (1, 1))
        and whole
        and dilated
        and wide
        and op.kernel in _WINDOWS
        and transforms(op) is not None
    )


def products(op: Conv) -> int:
    """Multiply-adds of its tiles; the transforms, which are sums, are not counted."""
    return winograd_tiles.products(op, _transforms(op))


def default_schedule(op: Conv, isa: Isa, threads: int = 2) -> ConvWinogradSchedule:
    """Tiles whose transformed inputs and products stay in L2, in a block that wastes few."""
    rows, columns = _transforms(op)
    cout, channels = op.cout // op.groups, _in_blocks(op, isa) * isa.lanes
    points = rows.points * columns.points
    counts = [
        -(-(-(-op.output[1 + axis] // op.dilation[axis])) // t.outputs)
        for axis, t in enumerate((rows, columns))
    ]
    maps, blocks = op.dilation[0] * op.dilation[1] * op.groups, isa.blocks(cout)
    tile_bytes = isa.element.bytes * points * channels
    # Time is counted in tiles' products. What a task's weights take, beside, is nothing out of L2;
    # the inputs' transform is as long as the products of nine output channels.
    weights = tile_bytes * cout
    near = weights <= isa.l2_bytes // 2
    reading = 1 if near else _FAR if weights <= _KEPT_BYTES else _FROM_MEMORY
    most = max(4, int(0.75 * isa.l2_bytes) // tile_bytes) if near else 48
    transform = 9 * isa.element.group / cout
    best, best_cost = (1, 1, 1, 1), float("inf")
    for splits in (s for s in range(1, threads + 1) if blocks % s == 0):
        for high, wide, of in _blocks_of_tiles(op, (counts[0], counts[1]), most):
            tiles = high * wide * of
            tasks = -(-counts[0] // high) * -(-counts[1] // wide) * maps // of * splits
            halo = 1 + 0.05 * (1 / high + 1 / wide)
            time = tiles * (halo / splits + transform) + reading / splits
            reach = _reach(op, 0, high * rows.outputs) * _reach(op, 1, wide * columns.outputs)
            if tiles * tile_bytes + isa.element.bytes * channels * reach > isa.l2_bytes:
                time *= _CROWDED
            # Among equals small blocks, whose inputs stay in L1.
            cost = -(-tasks // threads) * time * (1 + 0.001 * tiles)
            if cost < best_cost:
                best, best_cost = (high, wide, of, splits), cost
    high, wide, of, splits = best
    tile = best_tile(isa, high * wide * of, blocks // splits)
    # By point is as fast at best where weights are asked for ahead of their use.
    return ConvWinogradSchedule(high, wide, tile, splits, by_point=False, maps=of)


def _reach(op: Conv, axis: int, outputs: int) -> int:
    """Inputs that so many outputs of a map read, from the first to the last."""
    return (outputs - 1) * op.stride[axis] + op.kernel[axis]


def _blocks_of_tiles(
    op: Conv, counts: tuple[int, int], most: int
) -> Iterator[tuple[int, int, int]]:
    """Rows and columns of tiles and maps of a task, of at most so many tiles where that can be;
    several maps where each is whole."""
    for high in range(1, counts[0] + 1):
        for wide in range(1, min(counts[1], max(1, most // high)) + 1):
            yield high, wide, 1
    tiles, maps = counts[0] * counts[1], op.dilation[0] * op.dilation[1]
    for of in range(2, min(maps, most // tiles) + 1):
        if maps % of == 0:
            yield *counts, of


def _in_blocks(op: Conv, isa: Isa) -> int:
    """Input blocks of a group."""
    return sum(isa.blocks(c // op.groups) for c in op.cin)


def _transforms(op: Conv) -> Transforms:
    pair = transforms(op)
    assert pair is not None
    return pair


def pack(
    op: Conv, isa: Isa, weight: Array, bias: Array, steps: list[Array],
    normalisation: dict[str, Any] | None = None,
) -> list[NDArray[Any]]:  # fmt: skip
    """Constants in call order: transformed weight (O/c, points, I/g, c * g), each map's channels in
    groups of g (`Element.pack_weights`), bias (O/c, c), the steps' vectors."""
    del normalisation
    rows, columns = _transforms(op)
    out, inner = weight.shape[:2]
    window = np.einsum(
        "yh,oihw,xw->yxio", rows.window(), weight.astype(np.float64), columns.window()
    ).reshape(-1, inner, out)
    blocks, c = isa.blocks(out), isa.lanes
    padded = np.zeros((len(window), inner, blocks * c), np.float32)
    padded[..., :out] = window
    blocked = padded.reshape(len(window), inner, blocks, c).transpose(2, 0, 1, 3)
    ends = np.cumsum([cin // op.groups for cin in op.cin])[:-1]
    packed = [isa.element.pack_weights(part) for part in np.split(blocked, ends, axis=2)]
    vectors = pack_steps(isa, steps)
    return [np.concatenate(packed, axis=2), pack_vector(isa, np.asarray(bias)), *vectors]


def emit(op: Conv, schedule: ConvWinogradSchedule, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(maps, other maps, weight, bias, vectors, y)."""

    def signature(f: ir.PrimFuncBuilder) -> Callable[[], None]:
        return Kernel(op, schedule, isa, f).body

    return ir.prim_func("conv", signature)


class Vectors(Protocol):
    """A part of the maps that is read in vectors (`deploy.cpu.rows.band.Band`)."""

    def fill(self, row: ir.Expr, column: ir.Expr, first: ir.Expr = 0) -> None:
        """As `Band.fill`."""

    def vector(self, block: ir.Expr, row: ir.Expr, column: ir.Expr) -> ir.Expr:
        """A channel block of one pixel, counted through all maps."""


class Kernel:
    """On a task's tiles; another arithmetic replaces what reads maps and constants (`_begin`,
    `_constants`, `_band`) and `_finish`."""

    def __init__(
        self, op: Conv, schedule: ConvWinogradSchedule, isa: Isa, f: ir.PrimFuncBuilder
    ) -> None:
        self.op, self.isa, self.tile = op, isa, schedule.tile
        self.element = isa.element
        self.transforms = _transforms(op)
        rows, columns = self.transforms
        self.points = rows.points * columns.points
        self.epilogue = Epilogue(isa, op.then, op.output)
        self._begin(f)
        # Of the output channels: each group, cut so often.
        self.blocks, self.splits = isa.blocks(op.cout), schedule.splits
        self.parts = op.groups * self.splits
        if self.blocks % self.parts:
            raise ValueError(f"{self.blocks} channel blocks are not cut in {self.parts} parts")
        self.cin = tuple(c // op.groups for c in op.cin)
        self.by_point = schedule.by_point
        self.steps = tuple(-(-c // self.element.group) for c in self.cin)
        shape = self.blocks, self.points, sum(self.steps), isa.lanes * self.element.group
        self.weight = f.param("weight", shape, self.element.stored_weights)
        self._constants(f)
        self.epilogue.constants(f)
        self.y = output_map(isa, f, op)
        # Tiles of the largest of the maps of every d-th row and column, and those of a task.
        sizes = [-(-op.output[1 + axis] // op.dilation[axis]) for axis in (0, 1)]
        self.counts = tuple(-(-n // t.outputs) for n, t in zip(sizes, self.transforms, strict=True))
        self.high = min(schedule.tile_rows, self.counts[0])
        self.wide = min(schedule.tile_columns, self.counts[1])
        self.maps = schedule.maps
        if op.dilation[0] * op.dilation[1] % self.maps:
            raise ValueError(f"{self.maps} maps at once do not divide those of {op}")
        self.tiles = self.maps * self.high * self.wide
        self.in_blocks = _in_blocks(op, isa)
        # A line more than a power of two, or all points of a tile would meet in one set of L1.
        self.plane = (self.tiles * self.in_blocks + 1) * isa.lanes

    def _begin(self, f: ir.PrimFuncBuilder) -> None:
        """Declare what comes ahead of the weights."""
        self.inputs = Inputs(self.isa, f, self.op)
        self.epilogue.operands(f)

    def _constants(self, f: ir.PrimFuncBuilder) -> None:
        """Declare what follows them, but for the epilogue's."""
        self.bias = f.param("bias", (self.blocks, self.isa.lanes))

    def _band(self, reach: tuple[int, int]) -> Vectors:
        """What a task reads."""
        blocks_of_group = self.in_blocks if self.op.groups > 1 else None
        band = self.inputs.band(reach, blocks_of_group, self.op.dilation)
        assert isinstance(band, MapBand)
        return band

    def body(self) -> None:
        """Compute it all."""
        down, across = (
            -(-n // k) for n, k in zip(self.counts, (self.high, self.wide), strict=True)
        )
        tasks = self.op.dilation[0] * self.op.dilation[1] // self.maps * down * across
        with ir.parallel(0, tasks * self.parts) as index:
            # Neighbouring tasks share weights, which are larger than maps where they are cut.
            part, task = ir.bind(index // tasks), ir.bind(index % tasks)
            of, block = ir.bind(task // (down * across)), ir.bind(task % (down * across))
            first = self._first(0, block // across), self._first(1, block % across)
            self._task(lambda number: self._axes(of * self.maps + number, first), part)

    def _axes(self, of: ir.Expr, first: tuple[ir.Expr, ir.Expr]) -> Axes:
        """Of the tiles on one of the dilation's maps."""
        rows, columns = self.transforms
        across = self.op.dilation[1]
        return (
            TileAxis(self.op, 0, rows.outputs, of // across, first[0]),
            TileAxis(self.op, 1, columns.outputs, of % across, first[1]),
        )

    def _first(self, axis: int, index: ir.Expr) -> ir.Expr:
        """The first tile of a task: the last tasks overlap instead of being smaller."""
        size = (self.high, self.wide)[axis]
        return ir.minimum(index * size, self.counts[axis] - size)

    def _task(self, on_map: Callable[[ir.Expr], Axes], part: ir.Expr) -> None:
        """`on_map` gives the axes of the tiles on the map of a number in the task."""
        op = self.op
        sizes = zip((self.high, self.wide), self.transforms, strict=True)
        reach = tuple(_reach(op, axis, n * t.outputs) for axis, (n, t) in enumerate(sizes))
        band = self._band((reach[0], reach[1]))
        v = ir.scratch(self.points * self.plane, self.element.stored)
        with ir.serial(0, self.maps) as number:
            task = on_map(number)
            band.fill(
                task[0].first_input,
                task[1].first_input,
                part // self.splits * self.in_blocks,
            )
            self._transform_inputs(band, v, task, ir.bind(number * (self.high * self.wide)))
        blocks, c = self.blocks // self.parts, self.isa.lanes
        begin = ir.bind(part * blocks)
        held = blocks if self.by_point else min(self.tile.ob, blocks)
        products = ir.scratch(self.points * self.tiles * held * c, self.element.sums)

        def transform_back(first_held: ir.Expr, out: ir.Expr, ob: int) -> None:
            with ir.serial(0, ob) as o:
                source = products, held, ir.bind(first_held + o)
                with ir.serial(0, self.maps) as number:
                    first = ir.bind(number * (self.high * self.wide))
                    self._transform_outputs(source, on_map(number), first, ir.bind(out + o))

        if self.by_point:
            with ir.serial(0, self.points) as point:

                def multiply(out: ir.Expr, ob: int) -> None:
                    self._multiply(v, (products, held, out), point, begin + out, ob)

                ir.over_tiles(blocks, self.tile.ob, multiply)
            transform_back(0, begin, blocks)
            return

        def group(out: ir.Expr, ob: int) -> None:
            with ir.serial(0, self.points) as point:
                self._multiply(v, (products, held, 0), point, begin + out, ob)
            transform_back(0, begin + out, ob)

        ir.over_tiles(blocks, self.tile.ob, group)

    def _transform_inputs(self, band: Vectors, v: ir.Buffer, task: Axes, first: ir.Expr) -> None:
        """Of the tiles on one map, the first of which has that number."""
        c, (rows, columns) = self.isa.lanes, self.transforms
        stored = self.element.stored if self.element.integer else "float32"
        between = self._between(self.points, stored)
        with ir.serial(0, self.high) as i, ir.serial(0, self.wide) as j:
            row, column = ir.bind(task[0].input(i)), ir.bind(task[1].input(j))
            with ir.serial(0, self.in_blocks) as block:
                for x in between.over(columns.points):
                    given = [
                        ir.bind(band.vector(block, row + y, column + x)) for y in range(rows.points)
                    ]
                    for y, value in enumerate(rows.inputs(given, c)):
                        between[y * columns.points + x] = value
                at = ir.bind(((first + i * self.wide + j) * self.in_blocks + block) * c)
                for y in between.over(rows.points):
                    given = [
                        ir.bind(between[y * columns.points + x]) for x in range(columns.points)
                    ]
                    for x, value in enumerate(columns.inputs(given, c)):
                        place = (y * columns.points + x) * self.plane + at
                        self.element.store(v, value, place, lanes=c)

    def _between(self, count: int, dtype: str) -> Between:
        """Memory of vectors, in registers where those of a whole tile fit them."""
        small = self.points <= _IN_REGISTERS and self.isa.registers > _IN_REGISTERS
        return Between(count, self.isa.lanes, in_registers=small, dtype=dtype)

    def _multiply(
        self, v: ir.Buffer, sink: tuple[ir.Buffer, int, ir.Expr], point: ir.Expr, out: ir.Expr,
        ob: int,
    ) -> None:  # fmt: skip
        """The products of one point, of ob output blocks from `out` on, into a buffer of so many
        blocks, from a block on."""
        c, px = self.isa.lanes, min(self.tile.px, self.tiles)
        products, held, first = sink
        passes = -(-self.tiles // px)
        with ir.serial(0, passes) as t:
            begin = ir.bind(ir.minimum(t * px, self.tiles - px))
            acc = ir.Registers(px * ob, c, self.element.sums)
            for number in range(px * ob):
                acc[number] = ir.const_int(0, c) if self.element.integer else ir.const(0, c)
            base, step = 0, 0  # input blocks and steps of a sum before the part
            for cin, steps in zip(self.cin, self.steps, strict=True):
                parts = base, step, cin
                self._add_part(v, acc, (point, begin, out), (px, ob), parts, (t, passes))
                base, step = base + self.isa.blocks(cin), step + steps
            for p in range(px):
                for o in range(ob):
                    at = ((point * self.tiles + begin + p) * held + first + o) * c
                    ir.store(products, acc[p * ob + o], at, lanes=c)

    def _add_part(
        self, v: ir.Buffer, acc: ir.Registers, place: tuple[ir.Expr, ir.Expr, ir.Expr],
        size: tuple[int, int], part: tuple[int, int, int], turn: tuple[ir.Expr, int],
    ) -> None:  # fmt: skip
        """The products with one map: its first block, its first step, its channels. It is a turn
        of so many that take the same weights."""
        (point, begin, out), (base, first, cin), c = place, part, self.isa.lanes
        element, turns = self.element, turn[1]
        each = -(-size[1] // turns)  # output blocks that a turn asks for

        def x(p: int, block: ir.Expr, lane: ir.Expr) -> ir.Expr:
            at = (begin + p) * self.in_blocks + base + block
            return element.operand(v, point * self.plane + at * c + lane)

        def w(o: int, block: ir.Expr, lane: ir.Expr) -> ir.Expr:
            at = first + (block * c + lane) // element.group
            if turns == 1:  # behind a point's weights lie the next one's
                ir.prefetch(self.weight, out + o, point, at + WEIGHTS_AHEAD, 0)
            elif o < each:
                # Of the next point, or its first turn would wait for all that come from memory,
                # and the others, which find them near, ask for nothing.
                later = ir.minimum(turn[0] * each + o, size[1] - 1)
                ir.prefetch(self.weight, out + later, point + 1, at, 0)
            return element.weights(self.weight, out + o, point, at, lanes=c)

        def leave(p: int, o: int, value: ir.Expr) -> None:
            del p, o, value

        # Not in parts, which would take longer: the transforms round more than a long sum.
        matmul_tile(
            self.isa, *size, cin, x=x, w=w, init=None, finish=leave, registers=acc, in_parts=False,
            element=element,
        )  # fmt: skip

    def _transform_outputs(
        self, source: tuple[ir.Buffer, int, ir.Expr], task: Axes, first: ir.Expr, out: ir.Expr
    ) -> None:
        """One output block of every tile on one map, the first of which has that number."""
        c, (rows, columns) = self.isa.lanes, self.transforms
        products, held, number = source
        between = self._between(rows.outputs * columns.points, self.element.sums)
        with ir.serial(0, self.high) as i, ir.serial(0, self.wide) as j:
            row, column = task[0].begin(i), task[1].begin(j)
            tile = ir.bind((first + i * self.wide + j) * held + number)
            for x in between.over(columns.points):

                def product(y: int, x: ir.Expr = x, tile: ir.Expr = tile) -> ir.Expr:
                    point = y * columns.points + x
                    at = (point * (self.tiles * held) + tile) * c
                    return ir.bind(ir.load(products, at, lanes=c))

                given = [product(y) for y in range(rows.points)]
                for y, value in enumerate(rows.result(given, c)):
                    between[y * columns.points + x] = value
            for y in between.over(rows.outputs):
                given = [ir.bind(between[y * columns.points + x]) for x in range(columns.points)]
                place = (
                    ir.bind(task[0].output(row + y)),
                    ir.bind(task[1].output(column)),
                )
                self._finish(columns.result(given, c), place, out)

    def _finish(self, values: list[ir.Expr], place: tuple[ir.Expr, ir.Expr], out: ir.Expr) -> None:
        """Store a row of outputs of a tile."""
        bias = ir.bind(ir.load(self.bias, out, 0, lanes=self.isa.lanes))
        acc = ir.Registers(len(values), self.isa.lanes)
        for x, value in enumerate(values):
            acc[x] = value + bias
        self.epilogue.store(self.y, acc, place, (1, len(values)), self.op.dilation, out, 1)
