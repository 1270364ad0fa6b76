"""Depthwise convolution with bias and activation, on blocked activations, without padding copy."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from deploy import ir
from deploy.cpu.isa import Isa
from deploy.cpu.layout import Array, pack_depthwise, pack_vector
from deploy.cpu.rows.codes import Codes, Ending
from deploy.cpu.rows.copy import CopiedRows
from deploy.cpu.rows.cuts import Chunk, row_range
from deploy.cpu.rows.depthwise import DepthwiseRows
from deploy.cpu.rows.depthwise_bytes import DepthwiseBytes, pack_depthwise_bytes
from deploy.cpu.rows.maps import Map
from deploy.cpu.rows.ring import Band, Phase, Ring
from deploy.cpu.rows.sweep import Sweep
from deploy.cpu.scales import codes, unit_of, writing
from deploy.cpu.tiles import best_depthwise_px
from deploy.cpu.window import window_of
from deploy.grid import Scales
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


def pack(
    op: Depthwise, isa: Isa, weight: Array, bias: Array, scales: Scales | None = None
) -> list[NDArray[Any]]:
    """Constants in call order: weight (C/c, k*k, c), bias (C/c, c). In int8, with `scales` of x and
    y: codes of both, what `DepthwiseBytes` takes."""
    if scales is None:
        return [pack_depthwise(isa, weight), pack_vector(isa, bias)]
    (x,), y = scales.inputs, scales.output
    return [
        codes(writing(x), writing(y)),
        *pack_depthwise_bytes(isa, weight, bias, x, scales.weights[0], unit_of(op.act, y)),
    ]


def emit(op: Depthwise, schedule: DepthwiseSchedule, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(x, constants, y)."""
    blocks, tasks, rows = isa.blocks(op.channels), schedule.row_tasks, window_of(op).out_height
    if isa.element.integer:
        return _emit_bytes(op, schedule, isa)

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


def _emit_bytes(op: Depthwise, schedule: DepthwiseSchedule, isa: Isa) -> Any:  # noqa: ANN401
    """From a padded copy of the rows that a thread sees."""
    window, tasks = window_of(op), schedule.row_tasks
    band = Band(window, window.out_width)

    def signature(f: ir.PrimFuncBuilder) -> Callable[[], None]:
        x = Map(isa, f, "x", op.channels, op.height, op.width)
        coded = Codes(f, 2)
        ending = Ending(isa, op.act, coded[1])
        depthwise = DepthwiseBytes(isa, f, op, schedule.px, ending)
        y = Map(isa, f, "y", *op.output)

        def body() -> None:
            with ir.parallel(0, x.blocks * tasks) as index:
                first, task = ir.bind(index // tasks), ir.bind(index % tasks)
                ring = Ring(isa, band, 1, coded[0].zero())
                ring.clear(0)
                top, bottom = map(ir.bind, row_range(task, tasks, window.out_height))
                part = Chunk(first, isa.lanes, 1)
                sweep = Sweep(CopiedRows(x, op.dilation), ring, Phase(), part, 0, top)
                with ir.loop(top, bottom) as row:
                    sweep.advance(row)

                    def keep(block: ir.Expr, column: ir.Expr, /, *vectors: ir.Expr) -> None:
                        y.row(row).store(first + block, column, *vectors)

                    depthwise.ring_row(ring, Phase(), part, row, keep)

        return body

    return ir.prim_func("depthwise", signature)
