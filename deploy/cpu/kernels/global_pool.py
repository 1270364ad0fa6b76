"""Global average pooling and a 1x1 convolution on the result, in one kernel."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy import ir
from deploy.cpu.elements import ByteWeights
from deploy.cpu.isa import Isa
from deploy.cpu.layout import Array, pack_pointwise, pack_vector
from deploy.cpu.rows.average import average, average_bytes
from deploy.cpu.rows.buffer import RowBuffer
from deploy.cpu.rows.codes import Codes, Ending, code_at, codes_of
from deploy.cpu.rows.maps import Map
from deploy.cpu.rows.product import Product
from deploy.cpu.scales import REAL, averaging, codes, pack_product, unit_of, writing
from deploy.grid import Scales
from lut.ops import GlobalPool

PARALLEL_BYTES = 512 << 10  # below, a fork and join (1.5 us) costs more than it saves


@dataclass(frozen=True)
class GlobalPoolSchedule:
    """Row ranges of the sum (parallel if more than one)."""

    tasks: int


def default_schedule(op: GlobalPool, isa: Isa, threads: int = 2) -> GlobalPoolSchedule:
    """Parallel only for maps that take longer to read than threads take to start."""
    return GlobalPoolSchedule(default_tasks(isa, op.cin, op.height, op.width, threads))


def default_tasks(isa: Isa, channels: int, height: int, width: int, threads: int) -> int:
    """Ranges of rows of a map that is averaged."""
    size = isa.element.bytes * isa.lanes * isa.blocks(channels) * height * width
    return 1 if size < PARALLEL_BYTES else min(threads, height)


def pack(
    op: GlobalPool, isa: Isa, weight: Array, bias: Array, scales: Scales | None = None
) -> list[NDArray[Any]]:
    """Constants in call order: weight (O/c, I, c), bias (O/c, c). In int8, with `scales` of x, the
    mean and y: codes from sums to the mean and of y, weight, bias, multiplier. In `op.real` the
    bias is float32: code from sums to the mean, weight, bias over multiplier, multiplier."""
    if scales is None:
        return [pack_pointwise(isa, weight), pack_vector(isa, bias)]
    if op.real:
        (x,), (scale,) = scales.inputs, scales.weights
        return [
            codes(averaging(x, REAL, op.height * op.width)),
            pack_pointwise(_real(isa), np.asarray(weight, np.float32)),
            pack_vector(isa, bias / scale),
            pack_vector(isa, scale),
        ]
    (x,), (mean,), y = scales.inputs, scales.hidden, scales.output
    return [
        codes(averaging(x, mean, op.height * op.width), writing(y)),
        *pack_product(isa, weight, bias, mean, scales.weights[0], unit_of(op.act, y)),
    ]


def _real(isa: Isa) -> Isa:
    """What `GlobalPool.real` multiplies by."""
    return replace(isa, element=ByteWeights())


def emit(op: GlobalPool, schedule: GlobalPoolSchedule, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(x, constants, y)."""
    if op.real:
        return _emit_real(op, schedule, isa)

    def signature(f: ir.PrimFuncBuilder) -> Callable[[], None]:
        x = Map(isa, f, "x", op.cin, op.height, op.width)
        coded = codes_of(isa, f, 2)
        ending = Ending(isa, op.act, code_at(coded, 1))
        product = Product(isa, f, op.cin, op.cout)
        y = Map(isa, f, "y", *op.output)

        def body() -> None:
            mean = RowBuffer(isa, schedule.tasks * x.blocks, 1)
            if coded is None:
                average(x, mean, schedule.tasks)
            else:
                average_bytes(x, coded[0], mean.store, schedule.tasks)

            def project(first: ir.Expr, ob: int) -> None:
                product.tile(
                    1,
                    ob,
                    first,
                    x=lambda p, block, lane: mean.operand(block, p, lane),
                    start=ending.starts(),
                    finish=lambda p, o, *v: y.row(0).store(first + o, p, *ending.apply(*v)),
                )

            ir.over_tiles(product.blocks, min(8, product.blocks), project)

        return body

    return ir.prim_func("global_pool", signature)


def _emit_real(op: GlobalPool, schedule: GlobalPoolSchedule, isa: Isa) -> Any:  # noqa: ANN401
    def signature(f: ir.PrimFuncBuilder) -> Callable[[], None]:
        x = Map(isa, f, "x", op.cin, op.height, op.width)
        coded, wide, lanes = Codes(f, 1), isa.wide, isa.lanes
        product = Product(_real(isa), f, op.cin, op.cout)
        multiplier = f.param("multiplier", (product.blocks, lanes))
        ending, y = Ending(wide, op.act), Map(wide, f, "y", *op.output)

        def body() -> None:
            mean = RowBuffer(wide, x.blocks, 1)
            average_bytes(x, coded[0], mean.store, schedule.tasks)

            def project(first: ir.Expr, ob: int) -> None:
                def finish(p: ir.Expr, o: ir.Expr, *sums: ir.Expr) -> None:
                    (total,) = sums
                    real = total * ir.load(multiplier, first + o, 0, lanes=lanes)
                    y.row(0).store(first + o, p, *ending.apply(real))

                product.tile(
                    1, ob, first,
                    x=lambda p, block, lane: mean.operand(block, p, lane),
                    finish=finish,
                )  # fmt: skip

            ir.over_tiles(product.blocks, min(8, product.blocks), project)

        return body

    return ir.prim_func("global_pool", signature)
