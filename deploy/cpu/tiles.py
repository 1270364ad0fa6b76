"""Register tiles: the innermost loops of every convolution."""

from collections.abc import Callable

from deploy import ir
from deploy.cpu.elements import FLOAT32, Element
from deploy.cpu.isa import Isa, Tile

# A float32 sum of n terms in one row is off by about sqrt(n / 2) roundings of its size. One that is
# longer than LONG terms is taken in parts of about PART and the parts are added, as other libraries
# do: the scores of a vision transformer were else further from the truth than the parity gate
# allows (docs/decisions/0064). It costs an addition in memory for each accumulator and part.
LONG, PART = 128, 64

# Vectors of weights ahead of those in use that are asked for. Those of a whole network do not stay
# in the caches from frame to frame, and what the hardware asks for by itself comes late.
WEIGHTS_AHEAD = 48


def sum_in_parts(
    acc: ir.Registers, count: int, lanes: int, steps: int, each: int,
    body: Callable[[ir.Expr], None],
) -> None:  # fmt: skip
    """body(step) of so many steps, which add to `count` accumulators: `each` steps in a sum of
    their own."""
    parts, rest = divmod(steps, each)
    total = ir.Registers(count, lanes)
    for number in range(count):
        total[number] = acc[number]
    with ir.serial(0, parts) as part:
        for number in range(count):
            acc[number] = ir.const(0, lanes)
        with ir.serial(0, each) as step:
            body(part * each + step)
        for number in range(count):
            total[number] = total[number] + acc[number]
    for number in range(count):
        acc[number] = total[number]
    if rest:
        with ir.serial(0, rest) as step:
            body(parts * each + step)


def reduce_channels(
    isa: Isa, channels: int, step: Callable[[ir.Expr, ir.Expr], None], group: int = 1
) -> None:
    """Loop over channels as (block, lane), `group` of them in a step, named by the first: whole
    blocks, then the real lanes of the last one."""
    full, tail = divmod(channels, isa.lanes)
    if full:
        with ir.serial(0, full) as block:
            over_lanes(isa.lanes, group, lambda lane: step(block, lane))
    if tail:
        over_lanes(tail, group, lambda lane: step(full, lane))


def over_lanes(lanes: int, group: int, step: Callable[[ir.Expr], None]) -> None:
    """Loop over lanes, `group` of them in a step, named by the first."""
    with ir.serial(0, -(-lanes // group)) as number:
        step(number * group if group > 1 else number)


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
    in_parts: bool = True,
    element: Element = FLOAT32,
) -> None:
    """px pixels x ob channel blocks of a 1x1 convolution, in registers.

    x(pixel, block, lane) is one operand of `element`, w(output block, block, lane) its weights,
    init and finish give and take the sums of (pixel, output block). With init None, `registers`
    hold the start (pixel-major). A long sum is taken in parts if `in_parts`. The weights are loaded
    once per channel and each broadcast is used ob times: the other nesting needs px broadcasts at
    once and spills.
    """
    acc = registers or ir.Registers(px * ob, isa.lanes, element.sums)
    if init is not None:
        for p in range(px):
            for o in range(ob):
                acc[p * ob + o] = init(p, o)

    def step(block: ir.Expr, lane: ir.Expr) -> None:
        weights = [ir.bind(w(o, block, lane)) for o in range(ob)]
        for p in range(px):
            value = ir.bind(element.spread(x(p, block, lane), isa.lanes))
            for o in range(ob):
                at = p * ob + o
                acc[at] = element.dot(acc[at], weights[o], value, isa.lanes)

    if in_parts and channels > LONG and not element.integer:
        full, tail = divmod(channels, isa.lanes)

        def block(number: ir.Expr) -> None:
            over_lanes(isa.lanes, element.group, lambda lane: step(number, lane))

        sum_in_parts(acc, px * ob, isa.lanes, full, PART // isa.lanes, block)
        if tail:
            over_lanes(tail, element.group, lambda lane: step(full, lane))
    else:
        reduce_channels(isa, channels, step, element.group)
    for p in range(px):
        for o in range(ob):
            finish(p, o, acc[p * ob + o])


def over_row_tiles(
    blocks: int, columns: int, tile: Tile, body: Callable[[ir.Expr, int, ir.Expr, int], None]
) -> None:
    """Cover a row of some channel blocks by tiles, smaller ones at the ends:
    body(first block, blocks, first column, columns)."""

    def group(first: ir.Expr, ob: int) -> None:
        ir.over_tiles(columns, min(tile.px, columns), lambda begin, px: body(first, ob, begin, px))

    ir.over_tiles(blocks, tile.ob, group)


def best_depthwise_px(isa: Isa, kernel: int, width: int) -> int:
    """Output pixels per tile of a depthwise convolution: as many accumulators as fit beside k
    weights and two inputs."""
    most = min(isa.registers - kernel - 2, 2 * isa.fma_per_cycle * isa.fma_latency)
    most = max(2, min(most, width))
    return -(-width // -(-width // most))


def accumulate_row(
    acc: ir.Registers,
    px: int,
    kernel: int,
    stride: int,
    dilation: int,
    *,
    x: Callable[[int], ir.Expr],
    w: Callable[[int], ir.Expr],
    valid: Callable[[int, int], bool],
) -> None:
    """Add one kernel row to the px accumulators of a depthwise tile:
    acc[p] += w(kx) * x(p*stride + kx*dilation).

    Every input column is loaded once and used by all the pixels that see it; taps for which
    valid(p, kx) is False lie outside the map and are left out.
    """
    taps: dict[int, list[tuple[int, int]]] = {}
    for p in range(px):
        for kx in range(kernel):
            if valid(p, kx):
                taps.setdefault(p * stride + kx * dilation, []).append((p, kx))
    used = sorted({kx for uses in taps.values() for _, kx in uses})
    weights = {kx: ir.bind(w(kx)) for kx in used}
    for column in sorted(taps):
        value = ir.bind(x(column))
        for p, kx in taps[column]:
            acc[p] = acc[p] + weights[kx] * value
