"""Depthwise convolution with bias and activation, on blocked activations, without padding copy."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from deploy import ir
from deploy.cpu.isa import Isa
from deploy.cpu.layout import Array, pack_depthwise, pack_vector
from deploy.cpu.rows.cuts import row_range
from deploy.cpu.rows.depthwise import DepthwiseRows
from deploy.cpu.rows.maps import Map
from deploy.cpu.tiles import best_depthwise_px
from deploy.cpu.window import window_of
from lut.ops import Depthwise


@dataclass(frozen=True)
class DepthwiseSchedule:
    """Pixels per register tile, and row ranges per channel block (parallel)."""

    px: int
    row_tasks: int


def default_schedule(op: Depthwise, isa: Isa, threads: int = 2) -> DepthwiseSchedule:
    """Whole channel blocks in parallel where there are enough of them to share evenly."""
    blocks, window = isa.blocks(op.channels), window_of(op)
    row_tasks = 1 if blocks % threads == 0 or blocks >= 8 * threads else threads
    first, last = window.interior
    px = best_depthwise_px(isa, op.kernel, max(1, last - first or window.out_width))
    return DepthwiseSchedule(px, min(row_tasks, window.out_height))


def pack(op: Depthwise, isa: Isa, weight: Array, bias: Array) -> list[Array]:
    """Constants in call order: weight (C/c, k*k, c), bias (C/c, c)."""
    del op
    return [pack_depthwise(isa, weight), pack_vector(isa, bias)]


def emit(op: Depthwise, schedule: DepthwiseSchedule, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(x, weight, bias, y)."""
    blocks, tasks, rows = isa.blocks(op.channels), schedule.row_tasks, window_of(op).out_height

    def signature(f: ir.PrimFuncBuilder) -> Callable[[], None]:
        x = Map(isa, f, "x", op.channels, op.height, op.width)
        depthwise = DepthwiseRows(isa, f, op, schedule.px)
        y = Map(isa, f, "y", *op.output)

        def body() -> None:
            with ir.parallel(0, blocks * tasks) as index:
                block, task = ir.bind(index // tasks), ir.bind(index % tasks)
                with ir.loop(*row_range(task, tasks, rows)) as row:
                    depthwise.map_row(x, block, row, y.row(row).store)

        return body

    return ir.prim_func("depthwise", signature)
