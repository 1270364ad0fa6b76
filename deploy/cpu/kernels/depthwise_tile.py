"""The depthwise register tile that the depthwise kernel and every fused kernel share."""

from collections.abc import Callable
from dataclasses import dataclass

from deploy import ir
from deploy.cpu.isa import Isa
from lut.ops import STEM_KERNEL, STEM_STRIDE, Depthwise, InvertedResidual, Stem


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


@dataclass(frozen=True)
class Window:
    """A depthwise window over an image: padding dilation*(kernel//2), output ceil(size/stride)."""

    height: int
    width: int
    kernel: int
    stride: int
    dilation: int

    @property
    def pad(self) -> int:
        """Rows and columns of zeros on every side."""
        return self.dilation * (self.kernel // 2)

    @property
    def out_height(self) -> int:
        """Output rows."""
        return -(-self.height // self.stride)

    @property
    def out_width(self) -> int:
        """Output columns."""
        return -(-self.width // self.stride)

    @property
    def interior(self) -> tuple[int, int]:
        """Output columns [first, last) of which every tap lies inside the image."""
        first = -(-self.pad // self.stride)
        reach = (self.kernel - 1) * self.dilation - self.pad
        last = (self.width - 1 - reach) // self.stride + 1
        return (first, last) if first < last else (self.out_width, self.out_width)


def window_of(op: Depthwise | InvertedResidual | Stem) -> Window:
    """The window that an operation moves over its input."""
    if isinstance(op, Stem):
        return Window(op.height, op.width, STEM_KERNEL, STEM_STRIDE, 1)
    return Window(op.height, op.width, op.kernel, op.stride, op.dilation)


def row_bounds(
    kernel: int, dilation: int, height: ir.Expr, top: ir.Expr
) -> tuple[ir.Expr, ir.Expr]:
    """Kernel rows [low, high) inside an image of `height` rows, for the output row whose first tap
    is row `top`."""
    low = ir.bind(ir.maximum(0, (dilation - 1 - top) // dilation))
    high = ir.bind(ir.minimum(kernel, (height - 1 - top) // dilation + 1))
    return low, high


def image_row(
    isa: Isa,
    window: Window,
    px: int,
    y: ir.Expr,
    *,
    x: Callable[[ir.Expr, ir.Expr], ir.Expr],
    w: Callable[[ir.Expr, int], ir.Expr],
    bias: Callable[[], ir.Expr],
    keep: Callable[[ir.Expr, ir.Expr], None],
    ahead: Callable[[ir.Expr, int], None] | None = None,
) -> None:
    """Output row y of one channel block, read from an image without padding.

    x(row, column) and w(ky, kx) are vectors; keep(column, vector) takes the result; ahead(column,
    pixels) may ask for what later rows need. Rows outside
    the image are skipped by the bounds of the loop over ky; the columns whose taps reach outside
    have code of their own without those taps.
    """
    k, s, d, pad = window.kernel, window.stride, window.dilation, window.pad
    top = ir.bind(y * s - pad)
    low, high = row_bounds(k, d, window.height, top)

    def tile(begin: ir.Expr, px: int, valid: Callable[[int, int], bool]) -> None:
        if ahead is not None:
            ahead(begin, px)
        acc = ir.Registers(px, isa.lanes)
        for p in range(px):
            acc[p] = bias()
        with ir.serial(low, high) as ky:
            accumulate_row(
                acc,
                px,
                k,
                s,
                d,
                x=lambda j: x(top + ky * d, begin * s - pad + j),
                w=lambda kx: w(ky, kx),
                valid=valid,
            )
        for p in range(px):
            keep(begin + p, acc[p])

    def edge(first: int, last: int) -> None:
        for begin in range(first, last, px):

            def valid(p: int, kx: int, begin: int = begin) -> bool:
                return 0 <= (begin + p) * s - pad + kx * d < window.width

            tile(begin, min(px, last - begin), valid)

    first, last = window.interior
    edge(0, first)
    if first < last:
        ir.over_tiles(
            last - first, px, lambda begin, size: tile(first + begin, size, lambda p, kx: True)
        )
        edge(last, window.out_width)
