"""Each pixel's channels with mean 0 and deviation 1, on blocked activations."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy import ir
from deploy.cpu.isa import Isa
from deploy.cpu.layout import Array
from deploy.cpu.rows.epilogue import Epilogue, pack_steps
from deploy.cpu.rows.maps import Map
from lut.ops import ChannelNorm

_SMALL = 1 << 14  # elements: below, a fork and join costs more than it saves


@dataclass(frozen=True)
class ChannelNormSchedule:
    """Pixels of a tile, which stay in the first cache between the passes, and tasks (parallel)."""

    px: int
    tasks: int


def default_schedule(op: ChannelNorm, isa: Isa, threads: int = 2) -> ChannelNormSchedule:
    """As many pixels as hide the latency of sums; a task for each thread."""
    pixels = op.height * op.width
    px = min(isa.fma_per_cycle * isa.fma_latency, pixels)
    small = pixels * op.channels < _SMALL
    return ChannelNormSchedule(px, 1 if small else min(threads, -(-pixels // px)))


def pack(op: ChannelNorm, isa: Isa, epsilon: float, steps: list[Array]) -> list[NDArray[Any]]:
    """Constants in call order: epsilon (c,), the steps' vectors."""
    del op
    return [np.full(isa.lanes, epsilon, np.float32), *pack_steps(isa, steps)]


def emit(op: ChannelNorm, schedule: ChannelNormSchedule, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(x, other maps, epsilon, the steps' vectors, y)."""
    c, blocks, pixels = isa.lanes, isa.blocks(op.channels), op.height * op.width
    full, tail = divmod(op.channels, c)
    px = min(schedule.px, pixels)

    def signature(f: ir.PrimFuncBuilder) -> Callable[[], None]:
        x = Map(isa, f, "x", *op.output)
        epilogue = Epilogue(isa, op.then, op.output)
        epilogue.operands(f)
        epsilon = f.param("epsilon", (c,))
        epilogue.constants(f)
        y = Map(isa, f, "y", *op.output)

        def body() -> None:
            epilogue.as_row()
            row_x, row_y = x.as_row(), y.as_row()

            def over_channels(
                begin: ir.Expr, acc: ir.Registers, value: Callable[[int, ir.Expr], ir.Expr]
            ) -> None:
                """Sums of value(pixel, vector) over the real channels, in every lane; divided by
                their number."""
                for p in range(px):
                    acc[p] = ir.const(0, c)
                if full:
                    with ir.serial(0, full) as block:
                        for p in range(px):
                            acc[p] = acc[p] + value(p, row_x.vector(block, 0, begin + p))
                for p in range(px if tail else 0):
                    last = value(p, row_x.vector(full, 0, begin + p))
                    acc[p] = acc[p] + ir.select(ir.first_lanes(tail, c), last, ir.const(0, c))
                half = c // 2
                while half:
                    for p in range(px):
                        total = ir.bind(acc[p])
                        acc[p] = total + ir.rotate(total, half, c)
                    half //= 2
                for p in range(px):
                    acc[p] = acc[p] / ir.const(op.channels, c)

            def tile(begin: ir.Expr) -> None:
                means, inverse = ir.Registers(px, c), ir.Registers(px, c)
                over_channels(begin, means, lambda p, vector: vector)

                def square(p: int, vector: ir.Expr) -> ir.Expr:
                    centred = ir.bind(vector - means[p])
                    return centred * centred

                over_channels(begin, inverse, square)
                for p in range(px):
                    root = ir.sqrt(inverse[p] + ir.load(epsilon, 0, lanes=c))
                    inverse[p] = ir.const(1, c) / root
                with ir.serial(0, blocks) as block:
                    acc = ir.Registers(px, c)
                    for p in range(px):
                        acc[p] = (row_x.vector(block, 0, begin + p) - means[p]) * inverse[p]
                    epilogue.store(row_y, acc, (0, begin), (1, px), (1, 1), block, 1)

            tiles = -(-pixels // px)
            per_task = -(-tiles // schedule.tasks)
            with ir.parallel(0, schedule.tasks) as task, ir.serial(0, per_task) as t:
                # The last ones overlap instead of being shorter.
                tile(ir.bind(ir.minimum((task * per_task + t) * px, pixels - px)))

        return body

    return ir.prim_func("channel_norm", signature)
