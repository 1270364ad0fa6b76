"""Maps of another size: each row, then each column, a weighted sum of a few neighbouring ones.

A single tap has the weight 1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy import ir
from deploy.cpu.isa import Isa
from deploy.cpu.layout import Array
from deploy.cpu.rows.cuts import row_range
from deploy.cpu.rows.epilogue import Epilogue, pack_steps
from deploy.cpu.rows.maps import Map
from lut.ops import Resample

_GROUP = 4  # channel blocks that share a look at the tables
_UNROLLED = 4  # taps; more are a loop


@dataclass(frozen=True)
class ResampleSchedule:
    """Channel blocks at a time, and row ranges of each such group (parallel)."""

    group: int
    row_tasks: int


def default_schedule(op: Resample, isa: Isa, threads: int = 2) -> ResampleSchedule:
    """As many tasks as the threads share evenly."""
    blocks = isa.blocks(op.channels)
    group = max(n for n in range(1, min(blocks, _GROUP) + 1) if blocks % n == 0)
    row_tasks = 1 if blocks // group % threads == 0 else threads
    return ResampleSchedule(group, min(row_tasks, op.out_height))


def pack(
    op: Resample, isa: Isa, rows: Array, columns: Array, steps: list[Array]
) -> list[NDArray[Any]]:
    """Constants in call order: of rows and columns the first source and the weights, of what the
    matcher has: matrices (out, in). Then the steps' vectors."""
    tables = []
    for matrix, taps in zip((rows, columns), op.taps, strict=True):
        first, weights = banded(matrix, taps)
        tables += [first, weights]
    return [*tables, *pack_steps(isa, steps)]


def banded(matrix: Array, taps: int) -> tuple[NDArray[np.int32], Array]:
    """The first (out,) of `taps` neighbouring sources, and their weights (out, taps)."""
    size = matrix.shape[1]
    first = np.minimum((matrix != 0).argmax(axis=1), size - taps).astype(np.int32)
    places = first[:, None] + np.arange(taps)
    return first, np.take_along_axis(matrix, places, axis=1).astype(np.float32)


def emit(op: Resample, schedule: ResampleSchedule, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(x, other maps, row and column tables, vectors, y)."""
    blocks, tasks, c = isa.blocks(op.channels), schedule.row_tasks, isa.lanes
    group, (high, wide) = schedule.group, op.taps

    def signature(f: ir.PrimFuncBuilder) -> Callable[[], None]:
        x = Map(isa, f, "x", op.channels, op.height, op.width)
        epilogue = Epilogue(isa, op.then, op.output)
        epilogue.operands(f)
        row_first = f.param("row_first", (op.out_height,), "int32")
        row_weight = f.param("row_weight", (op.out_height, high))
        column_first = f.param("column_first", (op.out_width,), "int32")
        column_weight = f.param("column_weight", (op.out_width, wide))
        epilogue.constants(f)
        y = Map(isa, f, "y", *op.output)

        def blend(line: ir.Buffer, first: ir.Expr, row: ir.Expr) -> None:
            """The source row that an output row is made of."""
            top = ir.bind(row_first[row])

            def pixels(o: ir.Expr, begin: ir.Expr, px: int) -> None:
                acc = ir.Registers(px, c)
                for p in range(px):
                    acc[p] = ir.const(0, c)

                def tap(t: ir.Expr) -> None:
                    weight = ir.bind(ir.splat(row_weight[row, t], c))
                    for p in range(px):
                        acc[p] = acc[p] + weight * x.vector(first + o, top + t, begin + p)

                _over_taps(high, tap)
                for p in range(px):
                    ir.store(line, acc[p], (o * op.width + begin + p) * c, lanes=c)

            with ir.serial(0, group) as o:
                ir.over_tiles(op.width, min(8, op.width), lambda at, px: pixels(o, at, px))

        def sample(line: ir.Buffer, first: ir.Expr, row: ir.Expr) -> None:
            """All columns of an output row."""
            source_row = ir.bind(row_first[row]) if line is None else None
            with ir.serial(0, op.out_width) as column:
                left = ir.bind(column_first[column])

                def read(o: int, t: ir.Expr) -> ir.Expr:
                    if line is None:
                        return x.vector(first + o, source_row, left + t)
                    return ir.load(line, (o * op.width + left + t) * c, lanes=c)

                acc = ir.Registers(group, c)
                if wide == 1:
                    for o in range(group):
                        acc[o] = read(o, 0)
                else:
                    for o in range(group):
                        acc[o] = ir.const(0, c)

                    def tap(t: ir.Expr) -> None:
                        weight = ir.bind(ir.splat(column_weight[column, t], c))
                        for o in range(group):
                            acc[o] = acc[o] + weight * read(o, t)

                    _over_taps(wide, tap)
                epilogue.store(y, acc, (row, column), (1, 1), (1, 1), first, group)

        def body() -> None:
            with ir.parallel(0, blocks // group * tasks) as index:
                first, task = ir.bind(index // tasks * group), ir.bind(index % tasks)
                line = None if high == 1 else ir.scratch(group * op.width * c)
                with ir.loop(*row_range(task, tasks, op.out_height)) as row:
                    if line is not None:
                        blend(line, first, row)
                    sample(line, first, row)

        return body

    return ir.prim_func("resample", signature)


def _over_taps(taps: int, tap: Callable[[ir.Expr], None]) -> None:
    if taps > _UNROLLED:
        with ir.serial(0, taps) as t:
            tap(t)
    else:
        for t in range(taps):
            tap(t)
