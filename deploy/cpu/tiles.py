"""Sums over channels: what every convolution by a register tile is made of."""

from collections.abc import Callable

from deploy import ir
from deploy.cpu.isa import Isa


def reduce_channels(isa: Isa, channels: int, step: Callable[[ir.Expr, ir.Expr], None]) -> None:
    """Loop over channels as (block, lane): whole blocks, then the real lanes of the last one."""
    full, tail = divmod(channels, isa.lanes)
    if full:
        with ir.serial(0, full) as block, ir.serial(0, isa.lanes) as lane:
            step(block, lane)
    if tail:
        with ir.serial(0, tail) as lane:
            step(full, lane)


def matmul_tile(
    isa: Isa,
    px: int,
    ob: int,
    channels: int,
    *,
    x: Callable[[int, ir.Expr, ir.Expr], ir.Expr],
    w: Callable[[int, ir.Expr, ir.Expr], ir.Expr],
    init: Callable[[int, int], ir.Expr] | None,
    finish: Callable[[int, int, ir.Expr], None],
    registers: ir.Registers | None = None,
) -> None:
    """px pixels x ob channel blocks of a 1x1 convolution, in registers.

    x(pixel, block, lane) is one float, w(output block, block, lane) a vector, init and finish give
    and take the vector of (pixel, output block). With init None, `registers` hold the start
    (pixel-major). The weights are loaded once per channel and each broadcast is used ob times:
    the other nesting needs px broadcasts at once and spills.
    """
    acc = registers or ir.Registers(px * ob, isa.lanes)
    if init is not None:
        for p in range(px):
            for o in range(ob):
                acc[p * ob + o] = init(p, o)

    def step(block: ir.Expr, lane: ir.Expr) -> None:
        weights = [ir.bind(w(o, block, lane)) for o in range(ob)]
        for p in range(px):
            value = ir.bind(ir.splat(x(p, block, lane), isa.lanes))
            for o in range(ob):
                acc[p * ob + o] = acc[p * ob + o] + weights[o] * value

    reduce_channels(isa, channels, step)
    for p in range(px):
        for o in range(ob):
            finish(p, o, acc[p * ob + o])
