"""The product of two matrices of each head, both of them maps, on blocked activations.

A task has one head and some rows of the result, of which a register tile takes a few, and some
blocks of columns. The columns' vectors are read where they lie in the right map; where a head's are
no whole blocks, or go along the pixels, the task makes a copy of them first.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from deploy import ir
from deploy.cpu.isa import Isa, Tile, best_tile
from deploy.cpu.layout import Array
from deploy.cpu.rows.epilogue import Epilogue, pack_steps
from deploy.cpu.rows.maps import Map
from deploy.cpu.tiles import matmul_tile
from lut.ops import Product

_WIDEST = 16  # lanes of the widest instruction set


@dataclass(frozen=True)
class ProductSchedule:
    """Register tile (rows, blocks of columns), and tasks of each head (parallel)."""

    tile: Tile
    parts: int


def supports(op: Product) -> bool:
    """Steps only where a head's columns are whole blocks of channels."""
    return not op.then or op.heads == 1 or op.columns % _WIDEST == 0


def default_schedule(op: Product, isa: Isa, threads: int = 2) -> ProductSchedule:
    """The fewest parts that the threads share evenly."""
    tile = best_tile(isa, op.rows, isa.blocks(op.columns))
    parts = 1
    while op.heads * parts % threads and parts < -(-op.rows // tile.px):
        parts += 1
    return ProductSchedule(tile, parts)


def pack(op: Product, isa: Isa, steps: list[Array]) -> list[NDArray[Any]]:
    """The steps' vectors."""
    del op
    return pack_steps(isa, steps)


def emit(op: Product, schedule: ProductSchedule, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(a, b, other maps, the steps' vectors, y)."""

    def signature(f: ir.PrimFuncBuilder) -> Callable[[], None]:
        return _Kernel(op, schedule, isa, f).body

    return ir.prim_func("product", signature)


class _Kernel:
    def __init__(
        self, op: Product, schedule: ProductSchedule, isa: Isa, f: ir.PrimFuncBuilder
    ) -> None:
        self.op, self.schedule, self.isa = op, schedule, isa
        self.blocks = isa.blocks(op.columns)
        # Whether a head's columns are whole blocks of the result. What lies behind the last
        # channel of a map is nobody's: of one head the last block is like a whole one.
        self.whole = op.heads == 1 or op.columns % isa.lanes == 0
        a, b = op.maps
        self.a, self.b = Map(isa, f, "a", *a), Map(isa, f, "b", *b)
        self.epilogue = Epilogue(isa, op.then, op.output)
        self.epilogue.operands(f)
        self.epilogue.constants(f)
        self.y = Map(isa, f, "y", *op.output)

    def body(self) -> None:
        op = self.op
        self.epilogue.as_row()
        self.a, self.b, self.y = (m.as_row() for m in (self.a, self.b, self.y))
        px = min(self.schedule.tile.px, op.rows)
        tiles, rest = divmod(op.rows, px)
        parts = self.schedule.parts
        per_task = -(-tiles // parts)
        with ir.parallel(0, op.heads * parts) as task:
            head, part = ir.bind(task // parts), ir.bind(task % parts)
            direct = self.whole and op.turned != "right"
            columns = None if direct else self._columns(head)
            with ir.serial(0, per_task) as t:
                number = ir.bind(part * per_task + t)
                with ir.when(number < tiles), ir.then():
                    self._rows(head, number * px, px, columns)
            if rest:
                with ir.when(part == parts - 1), ir.then():
                    self._rows(head, tiles * px, rest, columns)

    def _value(self, of: Map, channel: ir.Expr, pixel: ir.Expr) -> ir.Expr:
        c = self.isa.lanes
        return of.row(0).value(channel // c, pixel, channel % c)

    def _columns(self, head: ir.Expr) -> ir.Buffer:
        """One head's right matrix as (inner, block, c), with zeros behind the last column."""
        op, wide = self.op, self.blocks * self.isa.lanes
        copy = ir.scratch(op.inner * wide)

        def one(k: ir.Expr, column: ir.Expr) -> None:
            if op.turned == "right":
                value = self._value(self.b, head * op.inner + k, column)
            else:
                value = self._value(self.b, head * op.columns + column, k)
            ir.store_scalar(copy, value, k * wide + column)

        if op.turned == "right":  # a pixel's channels lie together
            with ir.serial(0, op.columns) as column, ir.serial(0, op.inner) as k:
                one(k, column)
        else:
            with ir.serial(0, op.inner) as k, ir.serial(0, op.columns) as column:
                one(k, column)
        if wide > op.columns:
            with ir.serial(0, op.inner) as k, ir.serial(op.columns, wide) as column:
                ir.store_scalar(copy, 0.0, k * wide + column)
        return copy

    def _rows(self, head: ir.Expr, begin: ir.Expr, px: int, columns: ir.Buffer | None) -> None:
        """Some rows of the result."""
        op, c = self.op, self.isa.lanes
        begin = ir.bind(begin)

        def left(p: int, block: ir.Expr, lane: ir.Expr) -> ir.Expr:
            if op.turned == "left":
                return self._value(self.a, head * op.rows + begin + p, block * c + lane)
            return self._value(self.a, head * op.inner + block * c + lane, begin + p)

        def right(block: ir.Expr, k: ir.Expr) -> ir.Expr:
            if columns is None:
                return self.b.vector(head * self.blocks + block, 0, k)
            return ir.load(columns, (k * self.blocks + block) * c, lanes=c)

        def tile(first: ir.Expr, ob: int) -> None:
            acc = ir.Registers(px * ob, c)
            for number in range(px * ob):
                acc[number] = ir.const(0, c)
            matmul_tile(
                self.isa, px, ob, op.inner, x=left,
                w=lambda o, block, lane: right(first + o, block * c + lane),
                init=None, registers=acc, finish=lambda p, o, v: None,
            )  # fmt: skip
            if self.whole:
                out = ir.bind(head * self.blocks + first)
                self.epilogue.store(self.y, acc, (0, begin), (1, px), (1, 1), out, ob)
            else:
                self._scatter(head, begin, acc, first, px, ob)

        ir.over_tiles(self.blocks, self.schedule.tile.ob, tile)

    def _scatter(
        self, head: ir.Expr, begin: ir.Expr, acc: ir.Registers, first: ir.Expr, px: int, ob: int
    ) -> None:
        """Column by column, where a head's are no whole blocks."""
        c, op = self.isa.lanes, self.op
        buffer = ir.scratch(px * ob * c)
        for number in range(px * ob):
            ir.store(buffer, acc[number], number * c, lanes=c)
        with ir.serial(0, px) as p:
            with ir.serial(0, ob) as o, ir.serial(0, c) as lane:
                within = ir.bind((first + o) * c + lane)
                channel = ir.bind(head * op.columns + within)
                with ir.when(within < op.columns), ir.then():
                    value = buffer[(p * ob + o) * c + lane]
                    self.y.store(channel // c, 0, begin + p, value, channel % c, 1)
            # Every head writes the channels behind the last one: the same zeros.
            with ir.serial(op.heads * op.columns, self.y.blocks * c) as channel:
                self.y.store(channel // c, 0, begin + p, ir.const(0), channel % c, 1)
