"""The largest, the mean or the sum of all channels at each pixel."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from deploy import ir
from deploy.cpu.isa import Isa
from deploy.cpu.rows.cuts import row_range
from deploy.cpu.rows.maps import Map
from lut.ops import AcrossChannels

_PIXELS = 4  # at a time


@dataclass(frozen=True)
class AcrossChannelsSchedule:
    """Ranges of pixels (parallel)."""

    tasks: int


def default_schedule(op: AcrossChannels, isa: Isa, threads: int = 2) -> AcrossChannelsSchedule:
    """One range per thread."""
    del isa
    return AcrossChannelsSchedule(min(threads, -(-op.height * op.width // _PIXELS)))


def pack(op: AcrossChannels, isa: Isa) -> list[Any]:
    """No constants."""
    del op, isa
    return []


def emit(op: AcrossChannels, schedule: AcrossChannelsSchedule, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(x, y)."""
    c, tasks, pixels = isa.lanes, schedule.tasks, op.height * op.width
    full, tail = divmod(op.channels, c)
    px = min(_PIXELS, pixels)

    def both(a: ir.Expr, b: ir.Expr) -> ir.Expr:
        if op.reduce != "max":
            return a + b
        a, b = ir.bind(a), ir.bind(b)
        return ir.select(a > b, a, b)

    def signature(f: ir.PrimFuncBuilder) -> Callable[[], None]:
        x = Map(isa, f, "x", op.channels, op.height, op.width)
        y = Map(isa, f, "y", *op.output)

        def tile(
            source: Map, sink: Map, acc: ir.Registers, line: ir.Buffer, begin: ir.Expr
        ) -> None:
            neutral = ir.const(-math.inf if op.reduce == "max" else 0, c)
            for p in range(px):
                acc[p] = neutral
            if full:
                with ir.serial(0, full) as block:
                    for p in range(px):
                        acc[p] = both(acc[p], source.vector(block, 0, begin + p))
            for p in range(px):
                if tail:  # what lies behind the last channel is anything
                    ir.store(line, neutral, p * c, lanes=c)
                    rest = source.lanes(full, 0, begin + p, 0, tail)
                    ir.store(line, rest, p * c, lanes=tail)
                    acc[p] = both(acc[p], ir.load(line, p * c, lanes=c))
                ir.store(line, acc[p], p * c, lanes=c)
            half = c // 2
            while half:
                for p in range(px):
                    low, high = (ir.load(line, p * c + at, lanes=half) for at in (0, half))
                    ir.store(line, both(low, high), p * c, lanes=half)
                half //= 2
            for p in range(px):
                value = line[p * c]
                if op.reduce == "mean":
                    value = value * ir.const(1 / op.channels)
                sink.row(0).store(0, begin + p, ir.splat(value, c))

        def body() -> None:
            source, sink, turns = x.as_row(), y.as_row(), -(-pixels // px)
            with ir.parallel(0, tasks) as task:
                acc, line = ir.Registers(px, c), ir.scratch(px * c)
                with ir.loop(*row_range(task, tasks, turns)) as turn:
                    begin = ir.bind(ir.minimum(turn * px, pixels - px))
                    tile(source, sink, acc, line, begin)

        return body

    return ir.prim_func("across_channels", signature)
