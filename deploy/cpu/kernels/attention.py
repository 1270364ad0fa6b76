"""softmax(scale * q k + bias) v of each head, on blocked activations.

A task has one head, one group of pixels and some queries. It turns the keys, so that one channel
of neighbouring keys is a vector; then it takes a few queries after the other: their scores, the
exponentials and their sums, in memory of the thread that stays in the second cache, and the mean
of the values.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy import ir
from deploy.cpu import functions
from deploy.cpu.isa import Isa, Tile, best_tile
from deploy.cpu.layout import Array
from deploy.cpu.rows.epilogue import Epilogue, pack_steps
from deploy.cpu.rows.maps import Map
from deploy.cpu.tiles import matmul_tile
from lut.ops import Attention, Pair

_WIDEST = 16  # lanes of the widest instruction set


@dataclass(frozen=True)
class AttentionSchedule:
    """Register tile of the scores (queries, blocks of keys), and tasks of each head and group
    (parallel)."""

    tile: Tile
    parts: int


def supports(op: Attention) -> bool:
    """Steps only where a head's values are whole blocks of channels."""
    return not op.then or op.value % _WIDEST == 0


def default_schedule(op: Attention, isa: Isa, threads: int = 2) -> AttentionSchedule:
    """The fewest parts that the threads share evenly."""
    groups, queries, keys = _sizes(op)
    tile = best_tile(isa, queries, isa.blocks(keys))
    row = 4 * isa.blocks(keys) * isa.lanes
    px = max(1, min(tile.px, isa.l2_bytes // 2 // row))
    parts = 1
    while op.heads * groups * parts % threads and parts < -(-queries // px):
        parts += 1
    return AttentionSchedule(Tile(px, tile.ob), parts)


def _sizes(op: Attention) -> tuple[int, int, int]:
    """Groups, and the queries and keys of each."""
    groups = op.groups[0] * op.groups[1]
    return groups, op.height * op.width // groups, op.key_height * op.key_width // groups


def pack(
    op: Attention, isa: Isa, scale: float, steps: list[Array], bias: Array | None = None
) -> list[NDArray[Any]]:
    """Constants in call order: the scale (c,), the bias (biases, queries, blocks of keys, c), the
    steps' vectors; given one of (biases, queries, keys)."""
    packed = [np.full(isa.lanes, scale, np.float32)]
    if op.biases:
        assert bias is not None
        keys = bias.shape[-1]
        behind = isa.blocks(keys) * isa.lanes - keys
        bias = np.pad(bias, ((0, 0), (0, 0), (0, behind)), mode="edge")  # as the keys are
        packed.append(bias.reshape(*bias.shape[:2], -1, isa.lanes).astype(np.float32))
    return [*packed, *pack_steps(isa, steps)]


def emit(op: Attention, schedule: AttentionSchedule, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(q, k, v, other maps, scale, bias, the steps' vectors, y)."""

    def signature(f: ir.PrimFuncBuilder) -> Callable[[], None]:
        kernel = _Kernel(op, schedule, isa, f)
        return kernel.body

    return ir.prim_func("attention", signature)


class _Kernel:
    def __init__(
        self, op: Attention, schedule: AttentionSchedule, isa: Isa, f: ir.PrimFuncBuilder
    ) -> None:
        self.op, self.schedule, self.isa = op, schedule, isa
        self.groups, self.queries, self.keys = _sizes(op)
        self.key_blocks = isa.blocks(self.keys)
        self.value_blocks = isa.blocks(op.value)
        self.whole = op.value % isa.lanes == 0  # a head's values are whole blocks
        keys = op.key_height, op.key_width
        self.q = Map(isa, f, "q", op.heads * op.key, op.height, op.width)
        self.k = Map(isa, f, "k", op.heads * op.key, *keys)
        self.v = Map(isa, f, "v", op.heads * op.value, *keys)
        self.epilogue = Epilogue(isa, op.then, op.output)
        self.epilogue.operands(f)
        self.scale = f.param("scale", (isa.lanes,))
        self.bias = None
        if op.biases:
            shape = op.biases, self.queries, self.key_blocks, isa.lanes
            self.bias = f.param("bias", shape)
        self.epilogue.constants(f)
        self.y = Map(isa, f, "y", *op.output)

    def body(self) -> None:
        op, c = self.op, self.isa.lanes
        self.epilogue.as_row()
        self.q, self.k, self.v, self.y = (m.as_row() for m in (self.q, self.k, self.v, self.y))
        px = min(self.schedule.tile.px, self.queries)
        tiles = -(-self.queries // px)
        parts = self.schedule.parts
        per_task = -(-tiles // parts)
        row = self.key_blocks * c
        with ir.parallel(0, op.heads * self.groups * parts) as task:
            number, part = ir.bind(task // parts), ir.bind(task % parts)
            # Heads of one group, which share its pixels, one after the other.
            group, head = ir.bind(number // op.heads), ir.bind(number % op.heads)
            bias = ir.bind(number % op.biases) if op.biases else None
            turned = ir.scratch(op.key * row)
            self._turn(head, group, turned)
            values = None if self.whole and self.groups == 1 else self._values(head, group)
            scores = ir.scratch(px * row)
            inverse = ir.scratch(px * c)
            with ir.serial(0, per_task) as t:
                # The last ones overlap instead of being shorter.
                begin = ir.bind(ir.minimum((part * per_task + t) * px, self.queries - px))
                self._scores(head, group, begin, px, turned, scores, bias)
                self._softmax(px, scores, inverse)
                self._mix(head, group, begin, px, scores, inverse, values)

    def _pixel(self, group: ir.Expr, number: ir.Expr, plane: Pair) -> ir.Expr:
        """Where a group's pixel lies in its map."""
        (rows, columns), apart = self.op.groups, self.op.apart
        if self.groups == 1:
            return number
        high, wide = plane[0] // rows, plane[1] // columns
        down, along = number // wide, number % wide
        if apart:
            row, column = down * rows + group // columns, along * columns + group % columns
        else:
            row, column = group // columns * high + down, group % columns * wide + along
        return ir.bind(row * plane[1] + column)

    def _key(self, group: ir.Expr, number: ir.Expr) -> ir.Expr:
        return self._pixel(group, number, (self.op.key_height, self.op.key_width))

    def _query(self, group: ir.Expr, number: ir.Expr) -> ir.Expr:
        return self._pixel(group, number, (self.op.height, self.op.width))

    def _channel(self, of: Map, channel: ir.Expr, pixel: ir.Expr) -> ir.Expr:
        c = self.isa.lanes
        return of.row(0).value(channel // c, pixel, channel % c)

    def _turn(self, head: ir.Expr, group: ir.Expr, turned: ir.Buffer) -> None:
        """Keys as (channel, key); behind the last one the last one again."""
        op, row = self.op, self.key_blocks * self.isa.lanes
        with ir.serial(0, row) as key:
            at = ir.bind(self._key(group, ir.minimum(key, self.keys - 1)))
            with ir.serial(0, op.key) as channel:
                value = self._channel(self.k, head * op.key + channel, at)
                ir.store_scalar(turned, value, channel * row + key)

    def _values(self, head: ir.Expr, group: ir.Expr) -> ir.Buffer:
        """One head's values as blocks of their own (key, block, c), with zeros behind the last."""
        op, c, wide = self.op, self.isa.lanes, self.value_blocks * self.isa.lanes
        values = ir.scratch(self.keys * wide)
        with ir.serial(0, self.keys) as key:
            at = ir.bind(self._key(group, key))
            if self.whole:
                with ir.serial(0, self.value_blocks) as block:
                    value = self.v.vector(head * self.value_blocks + block, 0, at)
                    ir.store(values, value, key * wide + block * c, lanes=c)
                return values
            with ir.serial(0, op.value) as channel:
                value = self._channel(self.v, head * op.value + channel, at)
                ir.store_scalar(values, value, key * wide + channel)
            with ir.serial(op.value, wide) as channel:
                ir.store_scalar(values, 0.0, key * wide + channel)
        return values

    def _scores(
        self, head: ir.Expr, group: ir.Expr, begin: ir.Expr, px: int, turned: ir.Buffer,
        scores: ir.Buffer, bias: ir.Expr | None,
    ) -> None:  # fmt: skip
        """scale * q k + bias as (query, key)."""
        c, op, row = self.isa.lanes, self.op, self.key_blocks * self.isa.lanes
        pixels = [self._query(group, begin + p) for p in range(px)]

        def finished(value: ir.Expr, p: int, block: ir.Expr) -> ir.Expr:
            value = value * ir.load(self.scale, 0, lanes=c)
            if bias is None:
                return value
            return value + ir.load(self.bias, bias, begin + p, block, 0, lanes=c)

        def tile(first: ir.Expr, ob: int) -> None:
            matmul_tile(
                self.isa, px, ob, op.key,
                x=lambda p, block, lane: self._channel(
                    self.q, head * op.key + block * c + lane, pixels[p]
                ),
                w=lambda o, block, lane: ir.load(
                    turned, (block * c + lane) * row + (first + o) * c, lanes=c
                ),
                init=lambda p, o: ir.const(0, c),
                finish=lambda p, o, v: ir.store(
                    scores, finished(v, p, first + o), p * row + (first + o) * c, lanes=c
                ),
            )  # fmt: skip

        ir.over_tiles(self.key_blocks, self.schedule.tile.ob, tile)

    def _softmax(self, px: int, scores: ir.Buffer, inverse: ir.Buffer) -> None:
        """exp(score - largest) in place, and one over the sum of each row in every lane."""
        c, blocks = self.isa.lanes, self.key_blocks
        full, tail = divmod(self.keys, c)
        with ir.serial(0, px) as p:
            base = ir.bind(p * (blocks * c))
            best = ir.Registers(1, c)
            best[0] = ir.load(scores, base, lanes=c)
            with ir.serial(1, blocks) as block:
                best[0] = self._larger(best[0], ir.load(scores, base + block * c, lanes=c))
            self._across(best, self._larger)
            total = ir.Registers(1, c)
            total[0] = ir.const(0, c)

            def exponential(block: ir.Expr) -> ir.Expr:
                value = ir.Registers(1, c)
                value[0] = ir.load(scores, base + block * c, lanes=c) - best[0]
                value[0] = functions.exp_below_zero(value[0], c)
                ir.store(scores, value[0], base + block * c, lanes=c)
                return value[0]

            if full:
                with ir.serial(0, full) as block:
                    total[0] = total[0] + exponential(block)
            if tail:
                last = exponential(full)
                total[0] = total[0] + ir.select(ir.first_lanes(tail, c), last, ir.const(0, c))
            self._across(total, lambda a, b: a + b)
            ir.store(inverse, ir.const(1, c) / total[0], p * c, lanes=c)

    def _larger(self, a: ir.Expr, b: ir.Expr) -> ir.Expr:
        a, b = ir.bind(a), ir.bind(b)
        return ir.select(b > a, b, a)

    def _across(self, of: ir.Registers, join: Callable[[ir.Expr, ir.Expr], ir.Expr]) -> None:
        """Join all lanes, in every lane."""
        half = self.isa.lanes // 2
        while half:
            value = ir.bind(of[0])
            of[0] = join(value, ir.rotate(value, half, self.isa.lanes))
            half //= 2

    def _mix(
        self, head: ir.Expr, group: ir.Expr, begin: ir.Expr, px: int, scores: ir.Buffer,
        inverse: ir.Buffer, values: ir.Buffer | None,
    ) -> None:  # fmt: skip
        """The mean of the values, weighted by the exponentials."""
        c, row = self.isa.lanes, self.key_blocks * self.isa.lanes
        tile = best_tile(self.isa, px, self.value_blocks)

        def weight(block: ir.Expr, key: ir.Expr) -> ir.Expr:
            if values is None:
                return self.v.vector(head * self.value_blocks + block, 0, key)
            return ir.load(values, (key * self.value_blocks + block) * c, lanes=c)

        def part(first: ir.Expr, ob: int, start: ir.Expr, count: int) -> None:
            acc = ir.Registers(count * ob, c)
            for number in range(count * ob):
                acc[number] = ir.const(0, c)
            matmul_tile(
                self.isa, count, ob, self.keys,
                x=lambda p, block, lane: scores[(start + p) * row + block * c + lane],
                w=lambda o, block, lane: weight(first + o, block * c + lane),
                init=None, registers=acc,
                finish=lambda p, o, v: None,
            )  # fmt: skip
            for p in range(count):
                for o in range(ob):
                    sum_ = ir.load(inverse, (start + p) * c, lanes=c)
                    acc[p * ob + o] = acc[p * ob + o] * sum_
            out = ir.bind(head * self.value_blocks + first)
            if self.whole and self.groups == 1:
                place = 0, begin + start
                self.epilogue.store(self.y, acc, place, (1, count), (1, 1), out, ob)
            elif self.whole:
                for p in range(count):
                    place = 0, self._query(group, begin + start + p)
                    of_one = ir.Registers(ob, c)
                    for o in range(ob):
                        of_one[o] = acc[p * ob + o]
                    self.epilogue.store(self.y, of_one, place, (1, 1), (1, 1), out, ob)
            else:
                self._scatter(head, group, begin + start, acc, first, count, ob)

        ir.over_tiles(
            self.value_blocks, tile.ob,
            lambda first, ob: ir.over_tiles(
                px, tile.px, lambda start, count: part(first, ob, start, count)
            ),
        )  # fmt: skip

    def _scatter(
        self, head: ir.Expr, group: ir.Expr, begin: ir.Expr, acc: ir.Registers, first: ir.Expr,
        count: int, ob: int,
    ) -> None:  # fmt: skip
        """Channel by channel, where a head's are no whole blocks."""
        c, op = self.isa.lanes, self.op
        buffer = ir.scratch(count * ob * c)
        for number in range(count * ob):
            ir.store(buffer, acc[number], number * c, lanes=c)
        with ir.serial(0, count) as p:
            at = ir.bind(self._query(group, begin + p))
            with ir.serial(0, ob) as o, ir.serial(0, c) as lane:
                within = ir.bind((first + o) * c + lane)
                channel = ir.bind(head * op.value + within)
                with ir.when(within < op.value), ir.then():
                    value = buffer[(p * ob + o) * c + lane]
                    self.y.store(channel // c, 0, at, value, channel % c, 1)
            # Every head writes the channels behind the last one: the same zeros.
            with ir.serial(op.heads * op.value, self.y.blocks * c) as channel:
                self.y.store(channel // c, 0, at, ir.const(0), channel % c, 1)
