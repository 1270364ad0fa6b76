"""From class scores at the image's size to the label map.

A thread takes neighbouring pixels and keeps, for each, the best score and its class. Equal scores
give the lowest class and the first NaN wins, as in numpy and torch. TVM's own rule has a block of
256 threads for every pixel, of which as many work as there are classes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from deploy import ir
from deploy.gpu import ir as gpu
from deploy.gpu.kernels.label_end import THREADS, Best
from lut.ops import ArgMax

MOST_CLASSES = 255  # whose labels are bytes


def has(op: ArgMax) -> bool:
    """Whether it is of scores at the image's size, and few enough classes."""
    return not op.resampled and op.classes <= MOST_CLASSES


@dataclass(frozen=True)
class ArgMaxSchedule:
    """Pixels of a thread, whose scores are read and labels written as one word, and threads of a
    block."""

    pixels: int
    threads: int


def default_schedule(op: ArgMax) -> ArgMaxSchedule:
    """The longest word that divides the plane."""
    return ArgMaxSchedule(_words(op)[0], THREADS)


def alternatives(op: ArgMax, best: ArgMaxSchedule) -> Iterator[ArgMaxSchedule]:
    """Other words, each with other blocks."""
    del best
    for threads in (THREADS, 64, 256):
        for pixels in _words(op):
            yield ArgMaxSchedule(pixels, threads)


def _words(op: ArgMax) -> list[int]:
    return [size for size in (4, 2, 1) if op.height * op.width % size == 0]


def pack(op: ArgMax, schedule: ArgMaxSchedule) -> list[NDArray[Any]]:
    """No constants."""
    del op, schedule
    return []


def emit(op: ArgMax, schedule: ArgMaxSchedule) -> Any:  # noqa: ANN401
    """PrimFunc(scores, y)."""
    pixels, threads = schedule.pixels, schedule.threads
    plane = op.height * op.width
    vectors = plane // pixels
    blocks = -(-vectors // threads)

    def signature(f: ir.PrimFuncBuilder) -> Any:  # noqa: ANN401
        scores = f.param("scores", (1, op.classes, op.height, op.width))
        y = f.param("y", (1, op.height, op.width), "uint8")

        def body() -> None:
            given, out = ir.view(scores, (op.classes * plane,)), ir.view(y, (plane,))
            with gpu.launch((blocks,), (threads,)) as ((bx,), (tx,)):
                index = ir.bind(bx * threads + tx)
                with gpu.guard(vectors, blocks * threads, index):
                    first = ir.bind(index * pixels)
                    values = gpu.Locals(1, pixels)
                    values[0] = ir.load(given, first, lanes=pixels)
                    best = Best([values.lane(0, i) for i in range(pixels)])
                    with ir.serial(1, op.classes) as k:
                        values[0] = ir.load(given, k * plane + first, lanes=pixels)
                        for i in range(pixels):
                            best.see(i, k, values.lane(0, i))
                    ir.store(out, best.labels(), first, lanes=pixels)

        return body

    return ir.prim_func("arg_max", signature)
