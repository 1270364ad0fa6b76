"""Bilinear resize of a blocked activation to an explicit size, up or down."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from deploy import ir
from deploy.bilinear import AxisTable, axes_of
from deploy.cpu.isa import Isa
from deploy.cpu.rows.bilinear import BlendedRow
from deploy.cpu.rows.codes import Codes
from deploy.cpu.rows.cuts import row_range
from deploy.cpu.rows.maps import Map
from deploy.cpu.scales import codes, reading
from deploy.grid import Scales
from lut.ops import Resize

_PARALLEL_BYTES = 64 << 10  # of the output


@dataclass(frozen=True)
class ResizeSchedule:
    """Row ranges per channel block, of bytes of all of them (parallel)."""

    row_tasks: int


def default_schedule(op: Resize, isa: Isa, threads: int = 2) -> ResizeSchedule:
    """Whole channel blocks in parallel where there are enough of them to share evenly; of bytes,
    ranges of rows of a map that takes longer than threads take to start."""
    blocks = isa.blocks(op.channels)
    if isa.element.integer:
        small = blocks * isa.lanes * op.out_height * op.out_width < _PARALLEL_BYTES
        return ResizeSchedule(1 if small else min(threads, op.out_height))
    return ResizeSchedule(1 if blocks % threads == 0 else min(threads, op.out_height))


def pack(op: Resize, isa: Isa, scales: Scales | None = None) -> list[NDArray[Any]]:
    """Constants in call order: row index and weight, column index and weight; in int8, with
    `scales` of x and y, ahead of them the code from the quanta of one to those of the other."""
    del isa
    tables = [table for axis in axes_of(op) for table in axis.table()]
    if scales is None:
        return tables
    return [codes(reading(scales.inputs[0], scales.output)), *tables]


def emit(op: Resize, schedule: ResizeSchedule, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(x, constants, y)."""
    if isa.element.integer:
        return _emit_bytes(op, schedule, isa)
    c, blocks, tasks = isa.lanes, isa.blocks(op.channels), schedule.row_tasks

    def signature(f: ir.PrimFuncBuilder) -> Callable[[], None]:
        x = Map(isa, f, "x", op.channels, op.height, op.width)
        mix = isa.element.mix
        rows, columns = AxisTable(f, "row", axes_of(op)[0]), AxisTable(f, "column", axes_of(op)[1])
        y = Map(isa, f, "y", *op.output)

        def body() -> None:
            with ir.parallel(0, blocks * tasks) as index:
                block, task = ir.bind(index // tasks), ir.bind(index % tasks)
                with ir.loop(*row_range(task, tasks, op.out_height)) as row:
                    y0, y1, v0, v1 = rows.at(row, c)
                    with ir.serial(0, op.out_width) as column:
                        x0, x1, h0, h1 = columns.at(column, c)
                        upper, lower = (
                            mix(x.vector(block, line, x0), h0, x.vector(block, line, x1), h1, c)
                            for line in (y0, y1)
                        )
                        y.row(row).store(block, column, mix(upper, v0, lower, v1, c))

        return body

    return ir.prim_func("resize", signature)


def _emit_bytes(op: Resize, schedule: ResizeSchedule, isa: Isa) -> Any:  # noqa: ANN401
    """Rows first: each is blended once, as floats, for all its columns."""
    c, run = isa.lanes, isa.element.run
    tasks = schedule.row_tasks

    def signature(f: ir.PrimFuncBuilder) -> Callable[[], None]:
        x = Map(isa, f, "x", op.channels, op.height, op.width)
        coded = Codes(f, 1)
        rows, columns = AxisTable(f, "row", axes_of(op)[0]), AxisTable(f, "column", axes_of(op)[1])
        y = Map(isa, f, "y", *op.output)

        def body() -> None:
            with ir.parallel(0, tasks) as task:
                above = BlendedRow(x, rows)
                with ir.loop(*row_range(task, tasks, op.out_height)) as row:
                    above.blend(row)

                    def pixels(begin: ir.Expr, size: int, row: ir.Expr = row) -> None:
                        samples = [columns.at(begin + p, c) for p in range(size)]
                        with ir.serial(0, x.blocks) as block:
                            values = [
                                coded[0].apply(above.sample(block, sample), c) for sample in samples
                            ]
                            y.row(row).store(block, begin, *values)

                    ir.over_tiles(op.out_width, run, pixels)

        return body

    return ir.prim_func("resize", signature)
