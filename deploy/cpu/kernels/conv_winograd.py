"""Dense convolution at stride 1 by Winograd's minimal filtering, on blocked activations.

A task has some tiles of outputs, all in the caches: their inputs are transformed, multiplied for
each of the transform's points as a 1x1 convolution is, some output channels at a time, and
transformed back with everything that follows. With a dilation of d the d * d maps of every d-th
row and column are convolved each by itself.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy import ir
from deploy.cpu.isa import Isa, Tile, best_tile
from deploy.cpu.layout import Array, pack_vector
from deploy.cpu.rows.band import Inputs
from deploy.cpu.rows.epilogue import Epilogue, pack_steps
from deploy.cpu.rows.maps import Map
from deploy.cpu.tiles import matmul_tile
from deploy.cpu.winograd import Transform
from lut.ops import Conv, Pair

_WINDOWS = {(3, 3), (3, 1), (1, 3), (5, 5), (5, 1), (1, 5)}
_WEIGHT_BYTES = 20 << 20  # transformed weights beyond are read from memory for every few tiles


@dataclass(frozen=True)
class ConvWinogradSchedule:
    """Rows and columns of tiles of a task, register tile of the products."""

    tile_rows: int
    tile_columns: int
    tile: Tile


def transforms(op: Conv) -> tuple[Transform, Transform] | None:
    """Of rows and columns, the largest that the map and the caches have room for."""
    for six in (True, False):
        pair = tuple(_axis(op, axis, six=six) for axis in (0, 1))
        fits = all(t is not None and t.outputs <= _smallest(op, a) for a, t in enumerate(pair))
        if fits:
            rows, columns = pair
            weights = 4 * rows.points * columns.points * sum(op.cin) * op.cout
            if not six or weights <= _WEIGHT_BYTES:
                return rows, columns
    return None


def _axis(op: Conv, axis: int, *, six: bool) -> Transform | None:
    taps = op.kernel[axis]
    if taps == 1:
        return Transform(1, 1)
    outputs = (6 if six else 4) + 1 - taps
    return Transform(outputs, taps) if outputs > 1 else None


def _smallest(op: Conv, axis: int) -> int:
    """Outputs along an axis of the smallest map of every d-th row."""
    return op.output[1 + axis] // op.dilation[axis]


def supports(op: Conv) -> bool:
    """Windows of 3 and 5 taps at stride 1, where channels are enough to pay for the transforms."""
    plain = op.stride == op.spread == (1, 1) and op.groups == 1 and op.source == "maps"
    dilated = all(d == 1 or k > 1 for d, k in zip(op.dilation, op.kernel, strict=True))
    wide = sum(op.cin) >= 16 and op.cout >= 16
    return plain and dilated and wide and op.kernel in _WINDOWS and transforms(op) is not None


def default_schedule(op: Conv, isa: Isa, threads: int = 2) -> ConvWinogradSchedule:
    """Tiles whose transformed inputs and products stay in L2, in a block that wastes few."""
    rows, columns = _transforms(op)
    channels = sum(isa.blocks(c) for c in op.cin) * isa.lanes
    points = rows.points * columns.points
    counts = [
        -(-(-(-op.output[1 + axis] // op.dilation[axis])) // t.outputs)
        for axis, t in enumerate((rows, columns))
    ]
    maps = op.dilation[0] * op.dilation[1]
    total = counts[0] * counts[1]
    per_tile = 4 * points * (channels + 2 * isa.lanes)
    most = max(4, min(48, int(0.75 * isa.l2_bytes) // per_tile))
    best, best_cost = (1, 1), float("inf")
    for high in range(1, counts[0] + 1):
        for wide in range(1, counts[1] + 1):
            tiles = high * wide
            if tiles > max(most, 1):
                break
            tasks = -(-counts[0] // high) * -(-counts[1] // wide)
            rounds = -(-tasks * maps // threads)
            # Tiles that a thread does, with their borders, and the weights that it reads anew for
            # each task. Blocks of 8 tiles, whose inputs stay in L1, were as fast as larger ones
            # where they cover the map as well.
            halo = 1 + 0.05 * (1 / high + 1 / wide)
            cost = rounds * (tiles * halo + 1) / total + 0.002 * tiles
            if cost < best_cost:
                best, best_cost = (high, wide), cost
    blocks = isa.blocks(op.cout)
    return ConvWinogradSchedule(*best, best_tile(isa, best[0] * best[1], blocks))


def _transforms(op: Conv) -> tuple[Transform, Transform]:
    pair = transforms(op)
    assert pair is not None
    return pair


def pack(
    op: Conv, isa: Isa, weight: Array, bias: Array, steps: list[Array],
    normalisation: dict[str, Any] | None = None,
) -> list[NDArray[Any]]:  # fmt: skip
    """Constants in call order: transformed weight (O/c, points, I, c), bias (O/c, c), the steps'
    vectors."""
    del normalisation
    rows, columns = _transforms(op)
    out, inner = weight.shape[:2]
    window = np.einsum(
        "yh,oihw,xw->yxio", rows.window(), weight.astype(np.float64), columns.window()
    ).reshape(-1, inner, out)
    blocks, c = isa.blocks(out), isa.lanes
    padded = np.zeros((len(window), inner, blocks * c), np.float32)
    padded[..., :out] = window
    packed = padded.reshape(len(window), inner, blocks, c).transpose(2, 0, 1, 3)
    vectors = pack_steps(isa, steps)
    return [np.ascontiguousarray(packed), pack_vector(isa, np.asarray(bias)), *vectors]


def emit(op: Conv, schedule: ConvWinogradSchedule, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(maps, other maps, weight, bias, vectors, y)."""

    def signature(f: ir.PrimFuncBuilder) -> Callable[[], None]:
        return _Kernel(op, schedule, isa, f).body

    return ir.prim_func("conv", signature)


class _Kernel:
    def __init__(
        self, op: Conv, schedule: ConvWinogradSchedule, isa: Isa, f: ir.PrimFuncBuilder
    ) -> None:
        self.op, self.isa, self.tile = op, isa, schedule.tile
        self.transforms = _transforms(op)
        rows, columns = self.transforms
        self.points = rows.points * columns.points
        self.inputs = Inputs(isa, f, op)
        self.epilogue = Epilogue(isa, op.then, op.output)
        self.epilogue.operands(f)
        self.blocks = isa.blocks(op.cout)
        self.weight = f.param("weight", (self.blocks, self.points, sum(op.cin), isa.lanes))
        self.bias = f.param("bias", (self.blocks, isa.lanes))
        self.epilogue.constants(f)
        self.y = Map(isa, f, "y", *op.output)
        # Tiles of the largest of the maps of every d-th row and column, and those of a task.
        sizes = [-(-op.output[1 + axis] // op.dilation[axis]) for axis in (0, 1)]
        self.counts = tuple(-(-n // t.outputs) for n, t in zip(sizes, self.transforms, strict=True))
        self.high = min(schedule.tile_rows, self.counts[0])
        self.wide = min(schedule.tile_columns, self.counts[1])
        self.tiles = self.high * self.wide
        self.in_blocks = sum(isa.blocks(c) for c in op.cin)
        # A line more than a power of two, or all points of a tile would meet in one set of L1.
        self.plane = (self.tiles * self.in_blocks + 1) * isa.lanes

    def body(self) -> None:
        down, across = (-(-n // k) for n, k in zip(self.counts, (self.high, self.wide), strict=True))
        dilation, maps = self.op.dilation, self.op.dilation[0] * self.op.dilation[1]
        with ir.parallel(0, maps * down * across) as task:
            of, block = ir.bind(task // (down * across)), ir.bind(task % (down * across))
            offset = ir.bind(of // dilation[1]), ir.bind(of % dilation[1])
            # The last tiles overlap instead of being smaller.
            first = (
                ir.bind(ir.minimum(block // across * self.high, self.counts[0] - self.high)),
                ir.bind(ir.minimum(block % across * self.wide, self.counts[1] - self.wide)),
            )
            self._task(offset, first)

    def _task(self, offset: tuple[ir.Expr, ir.Expr], first: tuple[ir.Expr, ir.Expr]) -> None:
        op, transforms = self.op, self.transforms
        # Of the map of every d-th row and column: its size, and the task's first input.
        sizes, corner = [], []
        for axis in (0, 1):
            d = op.dilation[axis]
            sizes.append(ir.bind((op.output[1 + axis] - offset[axis] + d - 1) // d))
            last = sizes[axis] - transforms[axis].outputs
            corner.append(ir.bind(ir.minimum(first[axis] * transforms[axis].outputs, last)))
        reach = tuple(
            n * t.outputs + t.taps - 1
            for n, t in zip((self.high, self.wide), transforms, strict=True)
        )
        band = self.inputs.band((reach[0], reach[1]), step=op.dilation)
        band.fill(
            ir.bind(offset[0] - op.pad[0] + corner[0] * op.dilation[0]),
            ir.bind(offset[1] - op.pad[1] + corner[1] * op.dilation[1]),
        )
        v = ir.scratch(self.points * self.plane)
        self._transform_inputs(band, v, corner, sizes, first)
        products = ir.scratch(self.points * self.tiles * self.tile.ob * self.isa.lanes)

        def group(out: ir.Expr, ob: int) -> None:
            self._multiply(v, products, out, ob)
            self._transform_outputs(products, corner, sizes, first, offset, out, ob)

        ir.over_tiles(self.blocks, self.tile.ob, group)

    def _place(
        self, axis: int, corner: list[ir.Expr], sizes: list[ir.Expr], first: Any, tile: ir.Expr
    ) -> ir.Expr:
        """First output of a tile, counted from the task's first."""
        outputs = self.transforms[axis].outputs
        begin = ir.minimum((first[axis] + tile) * outputs, sizes[axis] - outputs)
        return ir.bind(begin - corner[axis])

    def _transform_inputs(
        self, band: Any, v: ir.Buffer, corner: list[ir.Expr], sizes: list[ir.Expr], first: Any
    ) -> None:
        c, (rows, columns) = self.isa.lanes, self.transforms
        between = ir.scratch(self.points * c)
        with ir.serial(0, self.high) as i, ir.serial(0, self.wide) as j:
            row = self._place(0, corner, sizes, first, i)
            column = self._place(1, corner, sizes, first, j)
            with ir.serial(0, self.in_blocks) as block:
                with ir.serial(0, columns.points) as x:
                    given = [
                        ir.bind(band.vector(block, row + y, column + x)) for y in range(rows.points)
                    ]
                    for y, value in enumerate(rows.inputs(given, c)):
                        ir.store(between, value, (y * columns.points + x) * c, lanes=c)
                at = ir.bind(((i * self.wide + j) * self.in_blocks + block) * c)
                with ir.serial(0, rows.points) as y:
                    given = [
                        ir.bind(ir.load(between, (y * columns.points + x) * c, lanes=c))
                        for x in range(columns.points)
                    ]
                    for x, value in enumerate(columns.inputs(given, c)):
                        place = (y * columns.points + x) * self.plane + at
                        ir.store(v, value, place, lanes=c)

    def _multiply(self, v: ir.Buffer, products: ir.Buffer, out: ir.Expr, ob: int) -> None:
        c, px = self.isa.lanes, min(self.tile.px, self.tiles)
        with ir.serial(0, self.points) as point, ir.serial(0, -(-self.tiles // px)) as t:
            begin = ir.bind(ir.minimum(t * px, self.tiles - px))
            acc = ir.Registers(px * ob, c)
            for number in range(px * ob):
                acc[number] = ir.const(0, c)
            base, channel = 0, 0  # input blocks and channels before the part
            for cin in self.op.cin:
                matmul_tile(
                    self.isa, px, ob, cin,
                    x=lambda p, block, lane, base=base: v[
                        point * self.plane
                        + ((begin + p) * self.in_blocks + base + block) * c
                        + lane
                    ],
                    w=lambda o, block, lane, channel=channel: ir.load(
                        self.weight, out + o, point, channel + block * c + lane, 0, lanes=c
                    ),
                    init=None, finish=lambda p, o, value: None, registers=acc,
                )  # fmt: skip
                base, channel = base + self.isa.blocks(cin), channel + cin
            for p in range(px):
                for o in range(ob):
                    at = ((point * self.tiles + begin + p) * ob + o) * c
                    ir.store(products, acc[p * ob + o], at, lanes=c)

    def _transform_outputs(
        self, products: ir.Buffer, corner: list[ir.Expr], sizes: list[ir.Expr], first: Any,
        offset: Any, out: ir.Expr, ob: int,
    ) -> None:  # fmt: skip
        c, (rows, columns), dilation = self.isa.lanes, self.transforms, self.op.dilation
        between = ir.scratch(rows.outputs * columns.points * c)
        with ir.serial(0, self.high) as i, ir.serial(0, self.wide) as j, ir.serial(0, ob) as o:
            row = ir.bind(corner[0] + self._place(0, corner, sizes, first, i))
            column = ir.bind(corner[1] + self._place(1, corner, sizes, first, j))
            tile = ir.bind(i * self.wide + j)
            with ir.serial(0, columns.points) as x:
                given = [
                    ir.bind(
                        ir.load(
                            products,
                            (((y * columns.points + x) * self.tiles + tile) * ob + o) * c,
                            lanes=c,
                        )
                    )
                    for y in range(rows.points)
                ]
                for y, value in enumerate(rows.result(given, c)):
                    ir.store(between, value, (y * columns.points + x) * c, lanes=c)
            with ir.serial(0, rows.outputs) as y:
                given = [
                    ir.bind(ir.load(between, (y * columns.points + x) * c, lanes=c))
                    for x in range(columns.points)
                ]
                bias = ir.bind(ir.load(self.bias, out + o, 0, lanes=c))
                acc = ir.Registers(columns.outputs, c)
                for x, value in enumerate(columns.result(given, c)):
                    acc[x] = value + bias
                place = (
                    ir.bind(offset[0] + (row + y) * dilation[0]),
                    ir.bind(offset[1] + column * dilation[1]),
                )
                size = 1, columns.outputs
                self.epilogue.store(self.y, acc, place, size, dilation, out + o, 1)
