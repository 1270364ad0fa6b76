"""Unpooling: each number goes where the pool found its largest, zeros everywhere else."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from deploy import ir
from deploy.cpu.isa import Isa
from deploy.cpu.rows.cuts import row_range
from deploy.cpu.rows.maps import Map
from lut.ops import Unpool


@dataclass(frozen=True)
class UnpoolSchedule:
    """Ranges of windows' rows per channel block (parallel)."""

    row_tasks: int


def default_schedule(op: Unpool, isa: Isa, threads: int = 2) -> UnpoolSchedule:
    """Whole channel blocks in parallel where there are enough of them to share evenly."""
    blocks = isa.blocks(op.channels)
    return UnpoolSchedule(1 if blocks % threads == 0 else min(threads, op.height // op.kernel))


def pack(op: Unpool, isa: Isa) -> list[Any]:
    """No constants."""
    del op, isa
    return []


def emit(op: Unpool, schedule: UnpoolSchedule, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(x, largest, updates, y)."""
    c, k, tasks = isa.lanes, op.kernel, schedule.row_tasks
    rows, columns = op.height // k, op.width // k

    def signature(f: ir.PrimFuncBuilder) -> Callable[[], None]:
        x = Map(isa, f, "x", op.channels, op.height, op.width)
        largest = Map(isa, f, "largest", op.channels, rows, columns)
        updates = Map(isa, f, "updates", op.channels, rows, columns)
        y = Map(isa, f, "y", *op.output)

        def window(block: ir.Expr, row: ir.Expr, column: ir.Expr) -> None:
            left = ir.Registers(1, c)  # the number, until it is placed
            left[0] = updates.vector(block, row, column)
            most = ir.bind(largest.vector(block, row, column))
            zero = ir.const(0, c)
            for i in range(k * k):
                there = row * k + i // k, column * k + i % k
                here = ir.bind(x.vector(block, *there)) == most
                y.row(there[0]).store(block, there[1], ir.select(here, left[0], zero))
                if i < k * k - 1:
                    left[0] = ir.select(here, zero, left[0])

        def body() -> None:
            with ir.parallel(0, isa.blocks(op.channels) * tasks) as index:
                block, task = ir.bind(index // tasks), ir.bind(index % tasks)
                with (
                    ir.loop(*row_range(task, tasks, rows)) as row,
                    ir.serial(0, columns) as column,
                ):
                    window(block, row, column)

        return body

    return ir.prim_func("unpool", signature)
