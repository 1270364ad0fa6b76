"""1x1 convolution with bias, activation and residual, on blocked activations."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy import ir
from deploy.cpu.isa import Isa, Tile, best_tile
from deploy.cpu.layout import Array, pack_pointwise, pack_vector
from deploy.cpu.rows.codes import Ending, code_at, codes_of
from deploy.cpu.rows.maps import Map, output_map
from deploy.cpu.rows.product import Product
from deploy.cpu.scales import codes, pack_product, reading, unit_of, writing
from deploy.grid import Scales
from lut.ops import Pointwise


@dataclass(frozen=True)
class PointwiseSchedule:
    """Register tile, and in how many ranges of pixels the map is cut (parallel)."""

    tile: Tile
    segments: int


def supports(op: Pointwise) -> bool:
    """Not with a gate, nor with a map of another size (`upsample_add`)."""
    return not op.gate and op.add != "low"


def default_schedule(op: Pointwise, isa: Isa, threads: int = 2) -> PointwiseSchedule:
    """The fewest segments, a multiple of `threads`, whose input stays in half of L2."""
    pixels = op.height * op.width
    tile = best_tile(isa, pixels, isa.blocks(op.cout))
    rounds = max(1, -(-pixels * op.cin * isa.element.bytes // (isa.l2_bytes // 2 * threads)))
    tiles = -(-pixels // tile.px)
    return PointwiseSchedule(tile, min(threads * rounds, tiles))


def pack(
    op: Pointwise, isa: Isa, weight: Array, bias: Array, scales: Scales | None = None
) -> list[NDArray[Any]]:
    """Constants in call order: weight (O/c, I, c), bias (O/c, c). In int8, with `scales` of x[, r]
    and y: codes of y[, r], weight, bias, multiplier."""
    if scales is None:
        return [pack_pointwise(isa, weight), pack_vector(isa, np.asarray(bias))]
    (x, *others), unit = scales.inputs, unit_of(op.act, scales.output, op.wide)
    return [
        codes(writing(scales.output), *[reading(other, unit) for other in others]),
        *pack_product(isa, weight, bias, x, scales.weights[0], unit),
    ]


def emit(op: Pointwise, schedule: PointwiseSchedule, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(x[, r], constants, y)."""
    pixels = op.height * op.width

    def signature(f: ir.PrimFuncBuilder) -> Callable[[], None]:
        x = Map(isa, f, "x", op.cin, op.height, op.width)
        added = None
        if op.add != "none":
            whole = op.add == "map"
            size = (op.height, op.width) if whole else (1, 1)
            added = Map(isa if whole else isa.of_channels, f, "r", op.cout, *size)
        coded = codes_of(isa, f, 1 if added is None else 2)
        product = Product(isa, f, op.cin, op.cout)
        y = output_map(isa, f, op)
        ending = Ending(isa, op.act, None if op.wide else code_at(coded, 0))
        if coded is not None and added is not None:
            added.reads = coded[1]

        def body() -> None:
            row = x.as_row()
            source, out = row.row(0), y.as_row().row(0)
            other = None if added is None else added.as_row()

            def addend(pixel: ir.Expr, block: ir.Expr) -> ir.Expr:
                assert other is not None
                return other.vector(block, 0, pixel if op.add == "map" else 0)

            product.over_pixels(
                pixels,
                schedule.tile,
                schedule.segments,
                x=lambda pixel, block, lane: source.operand(block, pixel, lane),
                ahead=lambda pixel, block: row.prefetch(block, 0, pixel, 1),
                start=ending.starts() if other is None else addend,
                finish=lambda pixel, block, *v: out.store(block, pixel, *ending.apply(*v)),
            )

        return body

    return ir.prim_func("pointwise", signature)
