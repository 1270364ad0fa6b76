"""Maps of another size: each row, then each column, a weighted sum of a few neighbouring ones."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from deploy import ir
from deploy.cpu.isa import Isa
from deploy.cpu.layout import Array
from deploy.cpu.rows.cuts import row_range
from deploy.cpu.rows.epilogue import Epilogue, pack_steps
from deploy.cpu.rows.maps import Map
from deploy.cpu.rows.table import TableRow, pack_table, tables_of
from deploy.cpu.scales import real_codes
from deploy.grid import Scales
from lut.ops import Resample

_GROUP = 4  # channel blocks that share a look at the tables


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
    op: Resample, isa: Isa, rows: Array, columns: Array, steps: list[Array],
    scales: Scales | None = None,
) -> list[NDArray[Any]]:  # fmt: skip
    """Constants in call order: in int8 the codes of y, x and the steps' maps, the tables of rows
    and columns, of which the matcher has matrices (out, in), the steps' vectors."""
    coded: list[NDArray[Any]] = [] if scales is None else [real_codes(scales)]
    tables = [*pack_table(rows, op.taps[0]), *pack_table(columns, op.taps[1])]
    return [*coded, *tables, *pack_steps(isa, steps)]


def emit(op: Resample, schedule: ResampleSchedule, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(x, other maps, constants, y)."""
    tasks, group = schedule.row_tasks, schedule.group
    groups = isa.blocks(op.channels) // group

    def signature(f: ir.PrimFuncBuilder) -> Callable[[], None]:
        x = Map(isa, f, "x", op.channels, op.height, op.width)
        epilogue = Epilogue(isa, op.then, op.output)
        epilogue.operands(f)
        epilogue.codes(f, x)
        rows, columns = tables_of(f, op.output[1:], op.taps)
        epilogue.constants(f)
        y = Map(isa, f, "y", *op.output)

        def body() -> None:
            with ir.parallel(0, groups * tasks) as index:
                first, task = ir.bind(index // tasks * group), ir.bind(index % tasks)
                line = TableRow(x, rows, group)
                with ir.loop(*row_range(task, tasks, op.out_height)) as row:
                    line.blend(first, row)
                    with ir.serial(0, op.out_width) as column:
                        acc = ir.Registers(group, isa.lanes)
                        columns.sums(column, acc, group, line.vector, isa.lanes)
                        epilogue.store(y, acc, (row, column), (1, 1), (1, 1), first, group)

        return body

    return ir.prim_func("resample", signature)
