"""Depthwise convolution: a thread computes a strip of rows in one column of one channel.

Neighbouring threads have neighbouring columns, so that a warp reads lines; the rows that the
outputs of a strip share are read once.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy import ir
from deploy.gpu import ir as gpu
from deploy.gpu.kernels.pointwise import ENOUGH_THREADS

THREADS = 128


@dataclass(frozen=True)
class DepthwiseSpec:
    """x (1, C, H, W) -> act(k x k convolution per channel + b), padded by dilation * (k // 2)."""

    channels: int
    height: int
    width: int
    kernel: int
    stride: int = 1
    dilation: int = 1
    act: gpu.Act = "none"

    @property
    def pad(self) -> int:
        """Zeros on each side."""
        return self.dilation * (self.kernel // 2)

    @property
    def out(self) -> tuple[int, int]:
        """Height and width of the output."""
        return -(-self.height // self.stride), -(-self.width // self.stride)

    @property
    def macs(self) -> int:
        """Multiply-accumulates, those of the padding included."""
        return self.channels * self.out[0] * self.out[1] * self.kernel**2


@dataclass(frozen=True)
class DepthwiseSchedule:
    """Rows of a strip, and threads of a block."""

    rows: int
    threads: int


def default_schedule(spec: DepthwiseSpec) -> DepthwiseSchedule:
    """The longest strip that leaves the GPU enough threads."""
    height, width = spec.out
    for rows in (4, 2):
        if spec.channels * -(-height // rows) * width >= ENOUGH_THREADS:
            return DepthwiseSchedule(rows, THREADS)
    return DepthwiseSchedule(1, THREADS)


def alternatives(spec: DepthwiseSpec, best: DepthwiseSchedule) -> Iterator[DepthwiseSchedule]:
    """Other strips, then other blocks for that of `best`."""
    for rows in (2, 1, 4, 8, 3, 6):
        if rows <= spec.out[0]:
            yield DepthwiseSchedule(rows, THREADS)
    for threads in (64, 256, 512):
        yield replace(best, threads=threads)


def pack(
    spec: DepthwiseSpec, weight: NDArray[np.float32], bias: NDArray[np.float32]
) -> list[NDArray[Any]]:
    """Constants in call order: weight (C, k * k), bias (C,)."""
    return [np.ascontiguousarray(weight.reshape(spec.channels, spec.kernel**2)), bias]


def emit(spec: DepthwiseSpec, schedule: DepthwiseSchedule) -> Any:  # noqa: ANN401
    """PrimFunc(x, weight, bias, y)."""
    rows, threads = schedule.rows, schedule.threads
    height, width = spec.out
    strips = -(-height // rows)
    blocks = -(-strips * width // threads)

    def signature(f: ir.PrimFuncBuilder) -> Any:  # noqa: ANN401
        x = f.param("x", (1, spec.channels, spec.height, spec.width))
        w = f.param("weight", (spec.channels, spec.kernel**2))
        b = f.param("bias", (spec.channels,))
        y = f.param("y", (1, spec.channels, height, width))

        def strip(channel: Any, first: Any, column: Any) -> None:  # noqa: ANN401
            acc = gpu.Locals(rows)
            for r in range(rows):
                acc[r] = b[channel]
            left = ir.bind(column * spec.stride - spec.pad)
            top = ir.bind(first * spec.stride - spec.pad)
            for offset, uses in _rows_read(spec, rows).items():
                line = ir.bind(top + offset)
                for kx in range(spec.kernel):
                    at = ir.bind(left + kx * spec.dilation)
                    there = ir.both(gpu.inside(line, spec.height), gpu.inside(at, spec.width))
                    value = ir.bind(gpu.either(there, x[0, channel, line, at], gpu.number(0)))
                    for r, ky in uses:
                        acc[r] = acc[r] + value * w[channel, ky * spec.kernel + kx]
            for r in range(rows):
                row = ir.bind(first + r)
                with gpu.guard(height, strips * rows, row):
                    ir.store_scalar(y, gpu.act_of(acc[r], spec.act), 0, channel, row, column)

        def body() -> None:
            with gpu.launch((blocks, spec.channels), (threads,)) as ((bx, channel), (tx,)):
                index = ir.bind(bx * threads + tx)
                with gpu.guard(strips * width, blocks * threads, index):
                    strip(channel, ir.bind(index // width * rows), ir.bind(index % width))

        return body

    return ir.prim_func("depthwise", signature)


def _rows_read(spec: DepthwiseSpec, rows: int) -> dict[int, list[tuple[int, int]]]:
    """For each input row of a strip, from its top: the (output row, kernel row) that use it."""
    uses: dict[int, list[tuple[int, int]]] = {}
    for r in range(rows):
        for ky in range(spec.kernel):
            uses.setdefault(r * spec.stride + ky * spec.dilation, []).append((r, ky))
    return dict(sorted(uses.items()))
