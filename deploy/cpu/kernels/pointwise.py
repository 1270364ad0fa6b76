"""1x1 convolution with bias, activation and residual, on blocked activations."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from deploy import ir
from deploy.cpu.isa import Isa, Tile, best_tile
from deploy.cpu.layout import Array, activation_shape, pack_pointwise, pack_vector
from deploy.cpu.tiles import matmul_tile
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
    blocks_in, blocks_out = isa.blocks(op.cin), isa.blocks(op.cout)
    px, ob = schedule.tile.px, schedule.tile.ob
    tiles = -(-pixels // px)
    per_segment = -(-tiles // schedule.segments)
    flat_in, flat_out = (blocks_in, pixels, c), (blocks_out, pixels, c)

    def signature(f: ir.PrimFuncBuilder) -> Any:  # noqa: ANN401
        shape_out = activation_shape(isa, op.cout, op.height, op.width)
        x5 = f.param("x", activation_shape(isa, op.cin, op.height, op.width))
        r5 = None
        if op.add == "map":
            r5 = f.param("r", shape_out)
        elif op.add == "channel":
            r5 = f.param("r", activation_shape(isa, op.cout, 1, 1))
        w = f.param("weight", (blocks_out, op.cin, c))
        b = f.param("bias", (blocks_out, c))
        y5 = f.param("y", shape_out)

        def body() -> None:
            x, y = ir.view(x5, flat_in), ir.view(y5, flat_out)
            each = op.add == "map"
            r = None if r5 is None else ir.view(r5, flat_out if each else (blocks_out, 1, c))

            def tile(start: Any, first: Any, ob: int) -> None:  # noqa: ANN401
                def init(p: int, o: int) -> Any:  # noqa: ANN401
                    value = ir.load(b, first + o, 0, lanes=c)
                    if r is not None:
                        pixel = start + p if each else 0
                        value = value + ir.load(r, first + o, pixel, 0, lanes=c)
                    return value

                matmul_tile(
                    isa,
                    px,
                    ob,
                    op.cin,
                    x=lambda p, block, lane: x[block, start + p, lane],
                    w=lambda o, block, lane: ir.load(w, first + o, block * c + lane, 0, lanes=c),
                    init=init,
                    finish=lambda p, o, v: ir.store(
                        y, ir.activate(v, op.act, c), first + o, start + p, 0, lanes=c
                    ),
                )

            with ir.parallel(0, schedule.segments) as segment:

                def group(first: Any, ob: int) -> None:  # noqa: ANN401
                    with ir.serial(0, per_segment) as t:
                        # The last tiles overlap instead of being shorter: the same values are
                        # written twice, and no second copy of the code is needed.
                        wanted = (segment * per_segment + t) * px
                        tile(ir.bind(ir.minimum(wanted, pixels - px)), first, ob)

                ir.over_tiles(blocks_out, ob, group)

        return body

    return ir.prim_func("pointwise", signature)
