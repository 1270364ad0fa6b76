"""The depthwise register tile that the depthwise kernel and every fused kernel share."""

from collections.abc import Callable

from deploy.kernels import ir
from deploy.kernels.isa import Isa


def best_px(isa: Isa, kernel: int, width: int) -> int:
    """Output pixels per tile: as many accumulators as fit beside k weights and two inputs."""
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
    valid: Callable[[int, int], bool] = lambda p, kx: True,
) -> None:
    """Add one kernel row to the px accumulators: acc[p] += w(kx) * x(p*stride + kx*dilation).

    Every input column is loaded once and used by all the pixels that see it; taps for which
    valid(p, kx) is False lie outside the image and are left out.
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
