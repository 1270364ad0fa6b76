"""Some neighbouring channels of a map."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from deploy import ir
from deploy.cpu.isa import Isa
from deploy.cpu.rows.codes import codes_of
from deploy.cpu.rows.cuts import row_range
from deploy.cpu.rows.maps import Map
from deploy.cpu.scales import codes, reading
from deploy.grid import Scales
from lut.ops import ChannelSlice


@dataclass(frozen=True)
class ChannelSliceSchedule:
    """Ranges of rows (parallel)."""

    row_tasks: int


def default_schedule(op: ChannelSlice, isa: Isa, threads: int = 2) -> ChannelSliceSchedule:
    """One range per thread."""
    del isa
    return ChannelSliceSchedule(min(threads, op.height))


def pack(op: ChannelSlice, isa: Isa, scales: Scales | None = None) -> list[Any]:
    """No constants; in int8 the code from the quanta of x to those of y."""
    del op, isa
    return [] if scales is None else [codes(reading(scales.inputs[0], scales.output))]


def emit(op: ChannelSlice, schedule: ChannelSliceSchedule, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(x[, codes], y)."""
    c, tasks = isa.lanes, schedule.row_tasks
    block, lane = divmod(op.begin, c)

    def signature(f: ir.PrimFuncBuilder) -> Callable[[], None]:
        x = Map(isa, f, "x", op.channels, op.height, op.width)
        coded = codes_of(isa, f, 1)
        x.reads = None if coded is None else coded[0]
        y = Map(isa, f, "y", *op.output)

        def one_row(row: ir.Expr) -> None:
            with ir.serial(0, y.blocks) as out, ir.serial(0, op.width) as column:
                if lane == 0:
                    y.row(row).store(out, column, x.vector(block + out, row, column))
                    return
                # The end of one block and the beginning of the next one, if there is one.
                last = ir.bind(ir.minimum(block + out + 1, x.blocks - 1))
                for of, source, sink, lanes in (
                    (block + out, lane, 0, c - lane), (last, 0, c - lane, lane),
                ):  # fmt: skip
                    value = x.lanes(of, row, column, source, lanes)
                    y.store(out, row, column, value, sink, lanes)

        def body() -> None:
            with ir.parallel(0, tasks) as task, ir.loop(*row_range(task, tasks, op.height)) as row:
                one_row(row)

        return body

    return ir.prim_func("channel_slice", signature)
