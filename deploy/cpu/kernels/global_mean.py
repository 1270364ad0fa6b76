"""The mean of every channel."""

from collections.abc import Callable
from typing import Any

from deploy import ir
from deploy.cpu.isa import Isa
from deploy.cpu.kernels.global_pool import GlobalPoolSchedule, default_tasks
from deploy.cpu.rows.average import average, average_bytes
from deploy.cpu.rows.buffer import RowBuffer
from deploy.cpu.rows.codes import codes_of
from deploy.cpu.rows.maps import Map
from deploy.cpu.scales import averaging, codes
from deploy.grid import Scales
from lut.ops import GlobalMean


def default_schedule(op: GlobalMean, isa: Isa, threads: int = 2) -> GlobalPoolSchedule:
    """As that of a global pool."""
    return GlobalPoolSchedule(default_tasks(isa, op.channels, op.height, op.width, threads))


def pack(op: GlobalMean, isa: Isa, scales: Scales | None = None) -> list[Any]:
    """No constants; in int8, with `scales` of x and y, the code from sums to the mean's quanta."""
    del isa
    if scales is None:
        return []
    return [codes(averaging(scales.inputs[0], scales.output, op.height * op.width))]


def emit(op: GlobalMean, schedule: GlobalPoolSchedule, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(x[, codes], y)."""

    def signature(f: ir.PrimFuncBuilder) -> Callable[[], None]:
        x = Map(isa, f, "x", op.channels, op.height, op.width)
        coded = codes_of(isa, f, 1)
        y = Map(isa, f, "y", *op.output)

        def body() -> None:
            if coded is not None:
                average_bytes(x, coded[0], y.row(0).store, schedule.tasks)
                return
            mean = RowBuffer(isa, schedule.tasks * x.blocks, 1)
            average(x, mean, schedule.tasks)
            with ir.serial(0, x.blocks) as block:
                y.row(0).store(block, 0, mean.vector(block, 0))

        return body

    return ir.prim_func("global_mean", signature)
