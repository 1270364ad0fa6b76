"""Dense convolution of taps that lie far apart, in place: those outside the map are left out.

Where a dilation is no longer small beside the map, as in atrous pyramids, most of what a copy with
zeros around it would hold are zeros. Here the output's columns are cut where a tap leaves the map,
each segment has the taps that are inside in all its columns, and each row its rows of taps.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from deploy import ir
from deploy.cpu.convolution import Grouping
from deploy.cpu.isa import Isa, Tile, tile_cycles
from deploy.cpu.kernels import conv_direct, conv_winograd
from deploy.cpu.rows.band import Inputs
from deploy.cpu.rows.epilogue import Epilogue
from deploy.cpu.rows.maps import Map
from deploy.cpu.tiles import WEIGHTS_AHEAD
from deploy.cpu.window import row_bounds
from lut.ops import Conv

pack = conv_direct.pack
_LEAST = 4  # columns of a segment; fewer would leave most registers of a tile empty
_WINOGRAD = 1.25  # time of one of its products, the transforms' in it, in multiply-adds here


@dataclass(frozen=True)
class ConvDilatedSchedule:
    """Register tile, and the rows of a task."""

    tile: Tile
    rows: int


@dataclass(frozen=True)
class _Segment:
    """Output columns [begin, end), where the taps [low, high) of a row of the window are inside."""

    begin: int
    end: int
    low: int
    high: int

    @property
    def columns(self) -> int:
        return self.end - self.begin

    @property
    def taps(self) -> int:
        return self.high - self.low


def supports(op: Conv) -> bool:
    """With a dilation, at stride 1, where segments are wide enough and Winograd is not faster."""
    plain = op.stride == op.spread == (1, 1) and op.source == "maps"
    apart = any(d > 1 and k > 1 for d, k in zip(op.dilation, op.kernel, strict=True))
    whole = op.groups == 1 or len(op.cin) == 1
    if not (plain and apart and whole and min(s.columns for s in _segments(op)) >= _LEAST):
        return False
    return not conv_winograd.supports(op) or products(op) < _WINOGRAD * conv_winograd.products(op)


def products(op: Conv) -> int:
    """Multiply-adds with the taps that are inside the map."""
    across = sum(segment.columns * segment.taps for segment in _segments(op))
    top, (kernel, dilation) = op.pad[0], (op.kernel[0], op.dilation[0])
    down = sum(
        0 <= row + tap * dilation - top < op.height
        for row in range(op.output[1])
        for tap in range(kernel)
    )
    return sum(op.cin) // op.groups * op.cout * down * across


def _segments(op: Conv) -> list[_Segment]:
    width, left, dilation = op.output[2], op.pad[1], op.dilation[1]
    inside = [
        (max(0, left - k * dilation), min(width, left - k * dilation + op.width))
        for k in range(op.kernel[1])
    ]
    cuts = sorted({0, width, *(cut for pair in inside for cut in pair if 0 < cut < width)})
    segments = []
    for begin, end in pairwise(cuts):
        taps = [k for k, (first, last) in enumerate(inside) if first <= begin and end <= last]
        low, high = (taps[0], taps[-1] + 1) if taps else (0, 0)
        segments.append(_Segment(begin, end, low, high))
    return segments


def default_schedule(op: Conv, isa: Isa, threads: int = 2) -> ConvDilatedSchedule:
    """The tile that is fastest over all segments; tasks whose input stays in half of L2, as many
    as the threads share evenly."""
    grouping, segments = Grouping(isa, op), _segments(op)
    blocks, best, best_cost = grouping.blocks, Tile(1, 1), float("inf")
    for ob in range(1, min(blocks, 6) + 1):
        tiles = [tile_cycles(isa, s.columns, blocks, ob) for s in segments]
        cost = sum(
            (s.taps + 0.1) * tile[1] for s, tile in zip(segments, tiles, strict=True) if tile
        )
        if all(tiles) and cost < best_cost:
            best, best_cost = Tile(max(tile[0] for tile in tiles if tile), ob), cost
    height, row_bytes = op.output[1], isa.element.bytes * isa.lanes * _blocks(grouping) * op.width
    most = max(1, isa.l2_bytes // 2 // row_bytes)
    tasks = -(-height // min(most, -(-height // threads)))
    tasks = min(height, -(-tasks // threads) * threads)
    return ConvDilatedSchedule(best, -(-height // tasks))


def _blocks(grouping: Grouping) -> int:
    return sum(grouping.isa.blocks(c) for c in grouping.cin)


def emit(op: Conv, schedule: ConvDilatedSchedule, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(maps, other maps, weight, bias, vectors, y)."""

    def signature(f: ir.PrimFuncBuilder) -> Callable[[], None]:
        return _Kernel(op, schedule, isa, f).body

    return ir.prim_func("conv", signature)


class _Kernel:
    def __init__(
        self, op: Conv, schedule: ConvDilatedSchedule, isa: Isa, f: ir.PrimFuncBuilder
    ) -> None:
        self.op, self.schedule, self.isa = op, schedule, isa
        self.grouping, self.maps = Grouping(isa, op), Inputs(isa, f, op).maps
        self.epilogue = Epilogue(isa, op.then, op.output)
        self.epilogue.operands(f)
        self.taps = op.kernel[0] * op.kernel[1]
        self.steps = self.grouping.steps(isa.element)
        blocks, group = isa.blocks(op.cout), isa.element.group
        shape = blocks, sum(self.steps) * self.taps, isa.lanes * group
        self.weight = f.param("weight", shape, isa.element.stored_weights)
        self.bias = f.param("bias", (blocks, isa.lanes))
        self.epilogue.constants(f)
        self.y = Map(isa, f, "y", *op.output)

    def body(self) -> None:
        height, rows = self.op.output[1], min(self.schedule.rows, self.op.output[1])
        with ir.parallel(0, -(-height // rows)) as task:
            # The last task overlaps the one before it.
            first = ir.bind(ir.minimum(task * rows, height - rows))
            with ir.serial(0, self.grouping.groups) as group:

                def tiles(begin: ir.Expr, ob: int, group: ir.Expr = group) -> None:
                    out = ir.bind(group * self.grouping.blocks + begin)
                    with ir.serial(0, rows) as row:
                        for segment in _segments(self.op):
                            self._segment(ir.bind(first + row), segment, group, out, ob)

                ir.over_tiles(self.grouping.blocks, self.schedule.tile.ob, tiles)

    def _segment(
        self, row: ir.Expr, segment: _Segment, group: ir.Expr, out: ir.Expr, ob: int
    ) -> None:
        """One row of a segment, of ob output blocks from `out` on."""
        columns = segment.columns
        px = -(-columns // -(-columns // min(self.schedule.tile.px, columns)))
        with ir.serial(0, -(-columns // px)) as number:
            at = ir.bind(segment.begin + ir.minimum(number * px, columns - px))
            acc = ir.Registers(px * ob, self.isa.lanes)
            for i in range(px * ob):
                acc[i] = ir.load(self.bias, out + i % ob, 0, lanes=self.isa.lanes)
            if segment.taps:
                self._reduce(row, at, segment, acc, (px, ob), group, out)
            self.epilogue.store(self.y, acc, (row, at), (1, px), (1, 1), out, ob)

    def _reduce(
        self, row: ir.Expr, column: ir.Expr, segment: _Segment, acc: ir.Registers,
        tile: tuple[int, int], group: ir.Expr, out: ir.Expr,
    ) -> None:  # fmt: skip
        """Add the products of all channels and of the taps inside."""
        c, (px, ob), op, element = self.isa.lanes, tile, self.op, self.isa.element
        top, left = ir.bind(row - op.pad[0]), ir.bind(column - op.pad[1])
        low, high = row_bounds(op.kernel[0], op.dilation[0], op.height, top)

        def channels(x: Map, block: ir.Expr, base: ir.Expr, lanes: int) -> None:
            with ir.loop(low, high) as ky, ir.serial(0, segment.taps) as number:
                kx = segment.low + number
                steps = -(-lanes // element.group)
                tap = ir.bind(base + (ky * op.kernel[1] + kx) * steps)
                source = x.row(ir.bind(top + ky * op.dilation[0]))
                begin = ir.bind(left + kx * op.dilation[1])
                with ir.serial(0, steps) as step:
                    for o in range(ob):
                        ir.prefetch(self.weight, out + o, tap + step + WEIGHTS_AHEAD, 0)
                    weights = [
                        ir.bind(element.weights(self.weight, out + o, tap + step, lanes=c))
                        for o in range(ob)
                    ]
                    for p in range(px):
                        value = source.operand(block, begin + p, step * element.group)
                        value = ir.bind(element.spread(value, c))
                        for o in range(ob):
                            sums = p * ob + o
                            acc[sums] = element.dot(acc[sums], weights[o], value, c)

        at = 0
        for x, cin, every in zip(self.maps, self.grouping.cin, self.steps, strict=True):
            full, tail = divmod(cin, c)
            if full:
                with ir.serial(0, full) as block:
                    here = ir.bind(group * self.isa.blocks(cin) + block)
                    channels(x, here, ir.bind(at + block * (self.taps * c // element.group)), c)
            if tail:
                here = ir.bind(group * self.isa.blocks(cin) + full)
                channels(x, here, at + full * (self.taps * c // element.group), tail)
            at += every * self.taps
