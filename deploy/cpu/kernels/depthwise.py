"""Depthwise convolution with bias and activation, on blocked activations, without padding copy."""

from dataclasses import dataclass
from typing import Any

from deploy import ir
from deploy.cpu.isa import Isa
from deploy.cpu.kernels.depthwise_tile import best_px, image_row, window_of
from deploy.cpu.layout import Array, activation_shape, pack_depthwise, pack_vector
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
    px = best_px(isa, op.kernel, max(1, last - first or window.out_width))
    return DepthwiseSchedule(px, min(row_tasks, window.out_height))


def pack(op: Depthwise, isa: Isa, weight: Array, bias: Array) -> list[Array]:
    """Constants in call order: weight (C/c, k*k, c), bias (C/c, c)."""
    del op
    return [pack_depthwise(isa, weight), pack_vector(isa, bias)]


def emit(op: Depthwise, schedule: DepthwiseSchedule, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(x, weight, bias, y)."""
    c, blocks, window = isa.lanes, isa.blocks(op.channels), window_of(op)
    tasks, rows = schedule.row_tasks, window.out_height

    def signature(f: ir.PrimFuncBuilder) -> Any:  # noqa: ANN401
        x = f.param("x", activation_shape(isa, op.channels, op.height, op.width))
        w = f.param("weight", (blocks, op.kernel**2, c))
        b = f.param("bias", (blocks, c))
        y = f.param("y", activation_shape(isa, op.channels, rows, window.out_width))

        def body() -> None:
            with ir.parallel(0, blocks * tasks) as index:
                block, task = ir.bind(index // tasks), ir.bind(index % tasks)
                with ir.loop(task * rows // tasks, (task + 1) * rows // tasks) as row:
                    image_row(
                        isa,
                        window,
                        schedule.px,
                        row,
                        x=lambda r, j: ir.load(x, 0, block, r, j, 0, lanes=c),
                        w=lambda ky, kx: ir.load(w, block, ky * op.kernel + kx, 0, lanes=c),
                        bias=lambda: ir.load(b, block, 0, lanes=c),
                        keep=lambda j, v: ir.store(
                            y, ir.activate(v, op.act, c), 0, block, row, j, 0, lanes=c
                        ),
                    )

        return body

    return ir.prim_func("depthwise", signature)
