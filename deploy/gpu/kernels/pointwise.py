"""1x1 convolution as a matrix product in fp32, with what follows it in the same kernel.

A thread keeps `outputs` channels of `pixels` neighbouring pixels in registers and walks the input
channels: one vector of pixels is read per step (a warp reads whole lines), the weights of a step
are the same for the whole warp and come as one broadcast. The channels of a block's other rows of
threads find the same pixels in L1. No shared memory, hence no barrier.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy import ir
from deploy.gpu import ir as gpu
from deploy.gpu.kernels.bilinear import sampling_of
from lut.ops import Pointwise

# Threads that a GPU wants before each should get more work: some 2048 on each of 32 processors.
ENOUGH_THREADS = 1 << 16
MOST_ROWS = 8  # of threads in a block
_MOST_SUMS = 64  # of a thread: beyond, registers do not suffice


@dataclass(frozen=True)
class PointwiseSchedule:
    """Per thread: neighbouring pixels and output channels; per block: lanes along the pixels and
    rows along the channels."""

    pixels: int
    outputs: int
    lanes: int
    rows: int


def default_schedule(op: Pointwise) -> PointwiseSchedule:
    """The most work per thread that leaves the GPU enough threads."""
    # Sums of a map need registers for both operands.
    most = _MOST_SUMS if op.add == "none" else _MOST_SUMS // 2
    fitting = [t for t in _tiles(op) if t[0] * t[1] <= most]
    enough = [t for t in fitting if _threads(op, t) >= ENOUGH_THREADS]
    return _with_block(op, *(enough[0] if enough else max(fitting, key=lambda t: _threads(op, t))))


def alternatives(op: Pointwise, best: PointwiseSchedule) -> Iterator[PointwiseSchedule]:
    """Other tiles, those with about as many sums as `best` first, then other blocks for its own."""
    sums = best.pixels * best.outputs
    for tile in sorted(_tiles(op), key=lambda t: max(t[0] * t[1] / sums, sums / (t[0] * t[1]))):
        yield _with_block(op, *tile)
    groups = -(-op.cout // best.outputs)
    for lanes in (1, 2, 4, 8):
        for rows in (1, 2, 4, MOST_ROWS):
            # 64 to 256 threads, and no rows but those that have channels.
            if 2 <= lanes * rows <= 8 and rows < 2 * groups:
                yield replace(best, lanes=gpu.WARP * lanes, rows=min(rows, groups))


def _tiles(op: Pointwise) -> list[tuple[int, int]]:
    """Pixels and channels of a thread, those with most products per value read first."""
    along = op.width if op.add == "low" else _plane(op)  # a vector stays in its row
    vectors = [size for size in (4, 2, 1) if along % size == 0]
    channels = [size for size in (16, 8, 4, 2, 1) if size == 1 or size <= op.cout]
    tiles = [(pixels, outputs) for pixels in vectors for outputs in channels]
    tiles = [t for t in tiles if _waste(op, t[1]) <= op.cout / 4 and t[0] * t[1] <= _MOST_SUMS]
    return sorted(tiles, key=lambda t: (-t[0] * t[1] / (t[0] + t[1]), _waste(op, t[1])))


def _with_block(op: Pointwise, pixels: int, outputs: int) -> PointwiseSchedule:
    rows = min(-(-op.cout // outputs), MOST_ROWS)
    lanes = gpu.WARP if rows > 2 else 4 * gpu.WARP  # 256 threads at most, for Adreno
    return PointwiseSchedule(pixels, outputs, lanes, rows)


def _plane(op: Pointwise) -> int:
    return op.height * op.width


def _waste(op: Pointwise, outputs: int) -> int:
    return -op.cout % outputs


def _threads(op: Pointwise, tile: tuple[int, int]) -> int:
    pixels, outputs = tile
    return -(-_plane(op) // pixels) * -(-op.cout // outputs)


def pack(
    op: Pointwise,
    schedule: PointwiseSchedule,
    weight: NDArray[np.float32],
    bias: NDArray[np.float32],
) -> list[NDArray[Any]]:
    """Constants in call order: weight (groups, cin, outputs), bias (groups, outputs), and the
    tables of the upsampled map."""
    outputs = schedule.outputs
    groups = -(-op.cout // outputs)
    padded = np.zeros((groups * outputs, op.cin), np.float32)
    padded[: op.cout] = weight.reshape(op.cout, op.cin)
    biases = np.zeros(groups * outputs, np.float32)
    biases[: op.cout] = bias
    packed = padded.reshape(groups, outputs, op.cin).transpose(0, 2, 1)
    tables = sampling_of(op).pack() if op.add == "low" else []
    return [np.ascontiguousarray(packed), biases.reshape(groups, outputs), *tables]


def emit(op: Pointwise, schedule: PointwiseSchedule) -> Any:  # noqa: ANN401
    """PrimFunc(x, [gate,] [added,] weight, bias[, row and column tables], y)."""
    s = schedule
    groups = -(-op.cout // s.outputs)
    vectors = -(-_plane(op) // s.pixels)
    grid = -(-vectors // s.lanes), -(-groups // s.rows)

    def signature(f: ir.PrimFuncBuilder) -> Any:  # noqa: ANN401
        flat = (op.cout, _plane(op))
        x = f.param("x", (1, op.cin, op.height, op.width))
        gate = f.param("gate", (1, op.cout, 1, 1)) if op.gate else None
        added: Any = None
        if op.add != "none":
            plane = {
                "map": (op.height, op.width),
                "channel": (1, 1),
                "low": (op.low_height, op.low_width),
            }[op.add]
            added = f.param("added", (1, op.cout, *plane))
        w = f.param("weight", (groups, op.cin, s.outputs))
        b = f.param("bias", (groups, s.outputs))
        low = sampling_of(op) if op.add == "low" else None
        tables = low.params(f) if low else None
        y = f.param("y", (1, op.cout, op.height, op.width))

        def body() -> None:
            planes, out = ir.view(x, (op.cin, _plane(op))), ir.view(y, flat)
            total = ir.view(added, flat) if op.add == "map" else None
            with gpu.launch(grid, (s.lanes, s.rows)) as ((bx, by), (tx, ty)):
                acc = gpu.Locals(s.outputs, s.pixels)
                vector = ir.bind(bx * s.lanes + tx)
                group = ir.bind(by * s.rows + ty)
                with (
                    gpu.guard(vectors, grid[0] * s.lanes, vector),
                    gpu.guard(groups, grid[1] * s.rows, group),
                ):
                    first = ir.bind(vector * s.pixels)
                    start = gpu.load_constants(b, group, 0, count=s.outputs)
                    for o in range(s.outputs):
                        acc[o] = gpu.splat(start[o], s.pixels)
                    with ir.serial(0, op.cin) as k:
                        pixels = ir.bind(ir.load(planes, k, first, lanes=s.pixels))
                        weights = gpu.load_constants(w, group, k, 0, count=s.outputs)
                        for o in range(s.outputs):
                            acc[o] = acc[o] + pixels * gpu.splat(weights[o], s.pixels)
                    sample = tables.at(first, s.pixels) if tables else None
                    for o in range(s.outputs):
                        channel = ir.bind(group * s.outputs + o)
                        with gpu.guard(op.cout, groups * s.outputs, channel):
                            value = acc[o]
                            if gate is not None:
                                value = value * gpu.splat(gate[0, channel, 0, 0], s.pixels)
                            if op.add == "channel":
                                value = value + gpu.splat(added[0, channel, 0, 0], s.pixels)
                            if total is not None:
                                value = value + ir.load(total, channel, first, lanes=s.pixels)
                            if sample is not None:
                                acc[o] = value
                                for i in range(s.pixels):
                                    acc.set_lane(
                                        o, i, acc.lane(o, i) + sample.value(added, channel, i)
                                    )
                                value = acc[o]
                            value = gpu.act_of(value, op.act, s.pixels)
                            ir.store(out, value, channel, first, lanes=s.pixels)

        return body

    return ir.prim_func("pointwise", signature)
