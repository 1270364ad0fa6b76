"""Depthwise convolution with bias and activation, on blocked activations, without padding copy."""

from dataclasses import dataclass
from typing import Any

from deploy import ir
from deploy.cpu.isa import Isa
from deploy.cpu.kernels.depthwise_tile import Window, best_px, image_row
from deploy.cpu.layout import Array, activation_shape, pack_depthwise, pack_vector


@dataclass(frozen=True)
class DepthwiseSpec:
    """(1, channels, height, width) -> (1, channels, ceil(height/stride), ceil(width/stride))."""

    channels: int
    height: int
    width: int
    kernel: int = 3
    stride: int = 1
    dilation: int = 1
    act: ir.Act = "relu6"

    @property
    def window(self) -> Window:
        """The geometry of every channel."""
        return Window(self.height, self.width, self.kernel, self.stride, self.dilation)

    @property
    def macs(self) -> int:
        """Multiply-accumulates, taps in the padding counted."""
        return self.channels * self.kernel**2 * self.window.out_height * self.window.out_width


@dataclass(frozen=True)
class DepthwiseSchedule:
    """Pixels per register tile, and row ranges per channel block (parallel)."""

    px: int
    row_tasks: int


def default_schedule(spec: DepthwiseSpec, isa: Isa, threads: int = 2) -> DepthwiseSchedule:
    """Whole channel blocks in parallel where there are enough of them to share evenly."""
    blocks, window = isa.blocks(spec.channels), spec.window
    row_tasks = 1 if blocks % threads == 0 or blocks >= 8 * threads else threads
    first, last = window.interior
    px = best_px(isa, spec.kernel, max(1, last - first or window.out_width))
    return DepthwiseSchedule(px, min(row_tasks, window.out_height))


def pack(spec: DepthwiseSpec, isa: Isa, weight: Array, bias: Array) -> list[Array]:
    """Constants in call order: weight (C/c, k*k, c), bias (C/c, c)."""
    del spec
    return [pack_depthwise(isa, weight), pack_vector(isa, bias)]


def emit(spec: DepthwiseSpec, schedule: DepthwiseSchedule, isa: Isa) -> Any:  # noqa: ANN401
    """PrimFunc(x, weight, bias, y)."""
    c, blocks, window = isa.lanes, isa.blocks(spec.channels), spec.window
    tasks, rows = schedule.row_tasks, window.out_height

    def signature(f: ir.PrimFuncBuilder) -> Any:  # noqa: ANN401
        x = f.param("x", activation_shape(isa, spec.channels, spec.height, spec.width))
        w = f.param("weight", (blocks, spec.kernel**2, c))
        b = f.param("bias", (blocks, c))
        y = f.param("y", activation_shape(isa, spec.channels, rows, window.out_width))

        def body() -> None:
            with ir.parallel(0, blocks * tasks) as index:
                block, task = ir.bind(index // tasks), ir.bind(index % tasks)
                with ir.loop(task * rows // tasks, (task + 1) * rows // tasks) as row:
                    image_row(
                        isa,
                        window,
                        schedule.px,
                        row,
                        x=lambda r, j: ir.load(x, 0, block, r, j, 0, lanes=c),
                        w=lambda ky, kx: ir.load(w, block, ky * spec.kernel + kx, 0, lanes=c),
                        bias=lambda: ir.load(b, block, 0, lanes=c),
                        keep=lambda j, v: ir.store(
                            y, ir.clamp(v, spec.act, c), 0, block, row, j, 0, lanes=c
                        ),
                    )

        return body

    return ir.prim_func("depthwise", signature)
