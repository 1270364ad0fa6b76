"""1x1 convolution with bias, activation and residual, on blocked activations."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from deploy import ir
from deploy.cpu.isa import Isa, Tile, best_tile
from deploy.cpu.layout import Array, pack_pointwise, pack_vector
from deploy.cpu.rows.maps import Map
from deploy.cpu.rows.product import Product
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
    rounds = max(1, -(-pixels * op.cin * 4 // (isa.l2_bytes // 2 * threads)))
    tiles = -(-pixels // tile.px)
    return PointwiseSchedule(tile, min(threads * rounds, tiles))


def pack(op: Pointwise, isa: Isa, weight: Array, bias: Array) -> list[Array]:
    """Constants in call order: weight (O/c, I, c), bias (O/c, c)."""
    del op
    return [pack_pointwise(isa, weight), pack_vector(isa, np.asarray(bias))]


def emit(op: Pointwise, schedule: PointwiseSchedule, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(x[, r], weight, bias, y)."""
    c, pixels = isa.lanes, op.height * op.width

    def signature(f: ir.PrimFuncBuilder) -> Callable[[], None]:
        x = Map(isa, f, "x", op.cin, op.height, op.width)
        added = None
        if op.add != "none":
            size = (op.height, op.width) if op.add == "map" else (1, 1)
            added = Map(isa, f, "r", op.cout, *size)
        product = Product(isa, f, op.cin, op.cout)
        y = Map(isa, f, "y", *op.output)

        def body() -> None:
            source, out = x.as_row().row(0), y.as_row().row(0)
            other = None if added is None else added.as_row()

            def init(block: ir.Expr, pixel: ir.Expr) -> ir.Expr:
                value = product.bias(block)
                if other is not None:
                    value = value + other.vector(block, 0, pixel if op.add == "map" else 0)
                return value

            product.over_pixels(
                pixels,
                schedule.tile,
                schedule.segments,
                x=lambda pixel, block, lane: source.operand(block, pixel, lane),
                ahead=source.ahead,
                init=init,
                finish=lambda block, pixel, v: out.store(block, pixel, ir.activate(v, op.act, c)),
            )

        return body

    return ir.prim_func("pointwise", signature)
