"""Convolutions of each channel by itself, of any window, without a copy of padding."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy import ir
from deploy.cpu.isa import Isa
from deploy.cpu.layout import Array, pack_vector
from deploy.cpu.rows.cuts import row_range
from deploy.cpu.rows.epilogue import Epilogue, pack_steps
from deploy.cpu.rows.maps import Map
from deploy.cpu.rows.slide import WIDE, slides_of
from deploy.cpu.scales import REAL, codes, pack_sums, reading, writing
from deploy.cpu.tiles import accumulate_row, best_depthwise_px
from deploy.grid import Scales
from lut.ops import Conv

_WIDEST = 16  # lanes


@dataclass(frozen=True)
class ConvDepthwiseSchedule:
    """Pixels per register tile, and row ranges per channel block (parallel)."""

    px: int
    row_tasks: int


def supports(op: Conv) -> bool:
    """Depthwise ones without zeros between the input's elements; of concatenated maps all but the
    last are whole vectors on every instruction set; in 8 bits of one map, into bytes."""
    depthwise = sum(op.cin) == op.cout == op.groups > 1 and all(
        c % _WIDEST == 0 for c in op.cin[:-1]
    )
    if op.dtype == "int8" and (len(op.cin) > 1 or op.wide):
        return False
    return depthwise and op.spread == (1, 1) and op.source == "maps" and op.kernel[1] <= WIDE


def default_schedule(op: Conv, isa: Isa, threads: int = 2) -> ConvDepthwiseSchedule:
    """Whole channel blocks in parallel where there are enough of them to share evenly."""
    blocks, columns = isa.blocks(op.cout), slides_of(op)[1]
    row_tasks = 1 if blocks % threads == 0 or blocks >= 8 * threads else threads
    first, last = columns.interior
    px = best_depthwise_px(isa, op.kernel[1], max(1, last - first or columns.out))
    return ConvDepthwiseSchedule(px, min(row_tasks, op.output[1]))


def pack(
    op: Conv, isa: Isa, weight: Array, bias: Array, steps: list[Array], normalisation: None = None,
    scales: Scales | None = None,
) -> list[NDArray[Any]]:  # fmt: skip
    """Constants in call order: weight (C/c, h*w, c), bias (C/c, c), the steps' vectors.

    In int8, with `scales` of x and the steps' maps, and of y: ahead of them the codes of y, x and
    these maps, and behind the bias the multiplier (C/c, c); weights and bias are whole numbers as
    floats, whose sums are exact below 2^24.
    """
    del normalisation
    taps = op.kernel[0] * op.kernel[1]
    padded = np.zeros((isa.blocks(op.cout) * isa.lanes, taps), np.float32)
    padded[: op.cout] = weight.reshape(op.cout, taps)
    packed = padded.reshape(-1, isa.lanes, taps).transpose(0, 2, 1)
    weights, biases = np.ascontiguousarray(packed), pack_vector(isa, np.asarray(bias))
    if scales is None:
        return [weights, biases, *pack_steps(isa, steps)]
    x, *others = scales.inputs
    coded = codes(writing(scales.output), (1, -x.zero), *[reading(other) for other in others])
    _, multiplier = pack_sums(isa, np.asarray(weight), bias, x, scales.weights[0], REAL)
    return [coded, weights, biases, multiplier, *pack_steps(isa, steps)]


def emit(op: Conv, schedule: ConvDepthwiseSchedule, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(x0, x1 ..., other maps, constants, y)."""
    blocks, tasks, lanes = isa.blocks(op.cout), schedule.row_tasks, isa.lanes
    rows, columns = slides_of(op)

    def signature(f: ir.PrimFuncBuilder) -> Callable[[], None]:
        parts = [Map(isa, f, f"x{i}", c, op.height, op.width) for i, c in enumerate(op.cin)]
        epilogue = Epilogue(isa, op.then, op.output)
        epilogue.operands(f)
        epilogue.codes(f, *parts)
        weight = f.param("weight", (blocks, op.kernel[0] * op.kernel[1], lanes))
        bias = f.param("bias", (blocks, lanes))
        integer = isa.element.integer
        multiplier = f.param("multiplier", (blocks, lanes)) if integer else None
        epilogue.constants(f)
        y = Map(isa, f, "y", *op.output)

        def one_row(x: Map, first: int, block: ir.Expr, row: ir.Expr) -> None:
            """Of a map whose first block is this one of the output."""
            top = ir.bind(rows.start(row))
            low, high = rows.bounds(top)

            def tile(begin: ir.Expr, px: int, valid: Callable[[int, int], bool]) -> None:
                acc = ir.Registers(px, lanes)
                for p in range(px):
                    acc[p] = ir.load(bias, block, 0, lanes=lanes)
                with ir.loop(low, high) as ky:
                    at, tap = ir.bind(top + ky * rows.dilation), ir.bind(ky * columns.kernel)
                    left = columns.start(begin)
                    accumulate_row(
                        acc, px, columns.kernel, columns.stride, columns.dilation,
                        x=lambda j: x.vector(block - first, at, left + j),
                        w=lambda kx: ir.load(weight, block, tap + kx, 0, lanes=lanes),
                        valid=valid,
                    )  # fmt: skip
                for p in range(px if integer else 0):
                    factor = ir.load(multiplier, block, 0, lanes=lanes)
                    acc[p] = ir.fma(acc[p], factor, ir.const(0, lanes), lanes)
                epilogue.store(y, acc, (row, begin), (1, px), (1, 1), block, 1)

            columns.over_tiles(schedule.px, tile)

        def body() -> None:
            first = 0
            for x in parts:
                with ir.parallel(0, x.blocks * tasks) as index:
                    block, task = ir.bind(first + index // tasks), ir.bind(index % tasks)
                    with ir.loop(*row_range(task, tasks, rows.out)) as row:
                        one_row(x, first, block, row)
                first += x.blocks

        return body

    return ir.prim_func("conv_depthwise", signature)
