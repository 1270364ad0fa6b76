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
from lut.ops import Depthwise

THREADS = 128


@dataclass(frozen=True)
class DepthwiseSchedule:
    """Rows of a strip, and threads of a block."""

    rows: int
    threads: int


def default_schedule(op: Depthwise) -> DepthwiseSchedule:
    """The longest strip that leaves the GPU enough threads."""
    _, height, width = op.output
    for rows in (4, 2):
        if op.channels * -(-height // rows) * width >= ENOUGH_THREADS:
            return DepthwiseSchedule(rows, THREADS)
    return DepthwiseSchedule(1, THREADS)


def alternatives(op: Depthwise, best: DepthwiseSchedule) -> Iterator[DepthwiseSchedule]:
    """Other strips, then other blocks for that of `best`."""
    for rows in (2, 1, 4, 8, 3, 6):
        if rows <= op.output[1]:
            yield DepthwiseSchedule(rows, THREADS)
    for threads in (64, 256, 512):
        yield replace(best, threads=threads)


def pack(
    op: Depthwise,
    schedule: DepthwiseSchedule,
    weight: NDArray[np.float32],
    bias: NDArray[np.float32],
) -> list[NDArray[Any]]:
    """Constants in call order: weight (C, k * k), bias (C,)."""
    del schedule
    return [np.ascontiguousarray(weight.reshape(op.channels, op.kernel**2)), bias]


def emit(op: Depthwise, schedule: DepthwiseSchedule) -> Any:  # noqa: ANN401
    """PrimFunc(x, weight, bias, y)."""
    rows, threads = schedule.rows, schedule.threads
    _, height, width = op.output
    strips = -(-height // rows)
    pad = op.dilation * (op.kernel // 2)
    blocks = -(-strips * width // threads)

    def signature(f: ir.PrimFuncBuilder) -> Any:  # noqa: ANN401
        x = f.param("x", (1, op.channels, op.height, op.width))
        w = f.param("weight", (op.channels, op.kernel**2))
        b = f.param("bias", (op.channels,))
        y = f.param("y", (1, op.channels, height, width))

        def strip(channel: Any, first: Any, column: Any) -> None:  # noqa: ANN401
            acc = gpu.Locals(rows)
            for r in range(rows):
                acc[r] = b[channel]
            left = ir.bind(column * op.stride - pad)
            top = ir.bind(first * op.stride - pad)
            for offset, uses in _rows_read(op, rows).items():
                line = ir.bind(top + offset)
                for kx in range(op.kernel):
                    at = ir.bind(left + kx * op.dilation)
                    there = ir.both(gpu.inside(line, op.height), gpu.inside(at, op.width))
                    value = ir.bind(gpu.either(there, x[0, channel, line, at], gpu.number(0)))
                    for r, ky in uses:
                        acc[r] = acc[r] + value * w[channel, ky * op.kernel + kx]
            for r in range(rows):
                row = ir.bind(first + r)
                with gpu.guard(height, strips * rows, row):
                    ir.store_scalar(y, gpu.act_of(acc[r], op.act), 0, channel, row, column)

        def body() -> None:
            with gpu.launch((blocks, op.channels), (threads,)) as ((bx, channel), (tx,)):
                index = ir.bind(bx * threads + tx)
                with gpu.guard(strips * width, blocks * threads, index):
                    strip(channel, ir.bind(index // width * rows), ir.bind(index % width))

        return body

    return ir.prim_func("depthwise", signature)


def _rows_read(op: Depthwise, rows: int) -> dict[int, list[tuple[int, int]]]:
    """For each input row of a strip, from its top: the (output row, kernel row) that use it."""
    uses: dict[int, list[tuple[int, int]]] = {}
    for r in range(rows):
        for ky in range(op.kernel):
            uses.setdefault(r * op.stride + ky * op.dilation, []).append((r, ky))
    return dict(sorted(uses.items()))
