"""The first convolution, 3x3 at stride 2, from the camera's image or from float planes.

A thread computes up to 16 channels of one pixel; normalisation happens as the image is read, so
that the border is padded with zeros of the normalised image, as the network was trained.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy import ir
from deploy.gpu import ir as gpu
from lut.ops import CHANNELS, Stem
from lut.ops import STEM_KERNEL as KERNEL
from lut.ops import STEM_STRIDE as STRIDE

THREADS = 128


@dataclass(frozen=True)
class StemSchedule:
    """Channels of a thread, and threads of a block."""

    outputs: int
    threads: int


def default_schedule(op: Stem) -> StemSchedule:
    """The most channels with the fewest that are none."""
    outputs = min((size for size in (16, 8, 4)), key=lambda size: (-op.cout % size, -size))
    return StemSchedule(outputs, THREADS)


def alternatives(op: Stem, best: StemSchedule) -> Iterator[StemSchedule]:
    """Other channels, then other blocks for those of `best`."""
    for outputs in (8, 16, 32, 4):
        if outputs < 2 * op.cout:
            yield StemSchedule(outputs, THREADS)
    for threads in (64, 256, 512):
        yield replace(best, threads=threads)


def pack(
    op: Stem,
    schedule: StemSchedule,
    weight: NDArray[np.float32],
    bias: NDArray[np.float32],
    *,
    scale: float = 1.0,
    mean: NDArray[np.float64] | None = None,
    std: NDArray[np.float64] | None = None,
) -> list[NDArray[Any]]:
    """Constants in call order: weight (groups, 27, outputs) in the order row, column, colour;
    bias (groups, outputs); factor (3,) and shift (3,) of the normalisation, v * factor + shift =
    (v * scale - mean) / std."""
    mean = np.zeros(CHANNELS) if mean is None else mean
    std = np.ones(CHANNELS) if std is None else std
    outputs = schedule.outputs
    groups = -(-op.cout // outputs)
    padded = np.zeros((groups * outputs, KERNEL**2 * CHANNELS), np.float32)
    padded[: op.cout] = weight.transpose(0, 2, 3, 1).reshape(op.cout, -1)
    biases = np.zeros(groups * outputs, np.float32)
    biases[: op.cout] = bias
    packed = padded.reshape(groups, outputs, -1).transpose(0, 2, 1)
    return [
        np.ascontiguousarray(packed), biases.reshape(groups, outputs),
        (scale / std).astype(np.float32), (-mean / std).astype(np.float32),
    ]  # fmt: skip


def emit(op: Stem, schedule: StemSchedule) -> Any:  # noqa: ANN401
    """PrimFunc(image, weight, bias, factor, shift, y)."""
    outputs, threads = schedule.outputs, schedule.threads
    groups = -(-op.cout // outputs)
    _, height, width = op.output
    blocks = -(-height * width // threads)
    camera = op.source == "uint8_nhwc"

    def signature(f: ir.PrimFuncBuilder) -> Any:  # noqa: ANN401
        shape = (1, op.height, op.width, 3) if camera else (1, 3, op.height, op.width)
        x = f.param("image", shape, "uint8" if camera else "float32")
        w = f.param("weight", (groups, KERNEL**2 * CHANNELS, outputs))
        b = f.param("bias", (groups, outputs))
        factor, shift = f.param("factor", (3,)), f.param("shift", (3,))
        y = f.param("y", (1, op.cout, height, width))

        def colour_at(line: Any, column: Any, colour: int) -> Any:  # noqa: ANN401
            if not camera:
                return x[0, colour, line, column]
            value = ir.cast(x[0, line, column, colour], "float32")
            return value * factor[colour] + shift[colour]

        def pixel(group: Any, row: Any, column: Any) -> None:  # noqa: ANN401
            acc = gpu.Locals(outputs)
            start = gpu.load_constants(b, group, 0, count=outputs)
            for o in range(outputs):
                acc[o] = start[o]
            for ky in range(KERNEL):
                line = ir.bind(row * STRIDE + ky - 1)
                for kx in range(KERNEL):
                    at = ir.bind(column * STRIDE + kx - 1)
                    there = ir.both(gpu.inside(line, op.height), gpu.inside(at, op.width))
                    for colour in range(CHANNELS):
                        read = colour_at(line, at, colour)
                        value = ir.bind(gpu.either(there, read, gpu.number(0)))
                        tap = (ky * KERNEL + kx) * CHANNELS + colour
                        weights = gpu.load_constants(w, group, tap, 0, count=outputs)
                        for o in range(outputs):
                            acc[o] = acc[o] + value * weights[o]
            for o in range(outputs):
                channel = ir.bind(group * outputs + o)
                with gpu.guard(op.cout, groups * outputs, channel):
                    ir.store_scalar(y, gpu.act_of(acc[o], op.act), 0, channel, row, column)

        def body() -> None:
            with gpu.launch((blocks, groups), (threads,)) as ((bx, group), (tx,)):
                index = ir.bind(bx * threads + tx)
                with gpu.guard(height * width, blocks * threads, index):
                    pixel(group, ir.bind(index // width), ir.bind(index % width))

        return body

    return ir.prim_func("stem", signature)
