"""From class scores at the stride of the features to the label map at the image's size.

One kernel: the upsampled planes, one per class, are never written. A thread takes neighbouring
pixels of a row and keeps, for each, the best score and its class. Equal scores give the lowest
class and the first NaN wins, as in numpy and torch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from deploy import ir
from deploy.gpu import ir as gpu
from deploy.gpu.kernels.bilinear import sampling_of
from lut.ops import Labels

THREADS = 128


@dataclass(frozen=True)
class LabelEndSchedule:
    """Pixels of a thread, whose labels are written as one word, and threads of a block."""

    pixels: int
    threads: int


class Best:
    """Of some pixels the best score yet and its class; `scores` are those of class 0."""

    def __init__(self, scores: Sequence[Any]) -> None:
        self._count = len(scores)
        self._best = gpu.Locals(self._count)
        self._labels = gpu.Locals(1, self._count, "int32")
        for i, score in enumerate(scores):
            self._best[i] = score
            self._labels.set_lane(0, i, gpu.int32(0))

    def see(self, pixel: int, label: Any, score: Any) -> None:  # noqa: ANN401
        """Another class of a pixel; classes come in order."""
        best, labels, value = self._best, self._labels, ir.bind(score)
        first_nan = ir.both(ir.is_nan(value), ir.negate(ir.is_nan(best[pixel])))
        wins = ir.bind(ir.either(value > best[pixel], first_nan))
        labels.set_lane(0, pixel, ir.select(wins, label, labels.lane(0, pixel)))
        best[pixel] = ir.select(wins, value, best[pixel])

    def labels(self) -> Any:  # noqa: ANN401
        """The pixels' classes, as bytes."""
        return ir.cast(self._labels[0], "uint8", self._count)


def default_schedule(op: Labels) -> LabelEndSchedule:
    """The longest word that stays in its row."""
    return LabelEndSchedule(_words(op)[0], THREADS)


def alternatives(op: Labels, best: LabelEndSchedule) -> Iterator[LabelEndSchedule]:
    """Other words, each with other blocks."""
    del best
    for threads in (THREADS, 64, 256):
        for pixels in _words(op):
            yield LabelEndSchedule(pixels, threads)


def _words(op: Labels) -> list[int]:
    return [size for size in (4, 2, 1) if op.out_width % size == 0]


def pack(op: Labels, schedule: LabelEndSchedule) -> list[NDArray[Any]]:
    """Constants in call order: the tables."""
    del schedule
    return sampling_of(op).pack()


def emit(op: Labels, schedule: LabelEndSchedule) -> Any:  # noqa: ANN401
    """PrimFunc(scores, row and column tables, y)."""
    pixels, threads = schedule.pixels, schedule.threads
    plane = op.out_height * op.out_width
    vectors = plane // pixels
    blocks = -(-vectors // threads)

    def signature(f: ir.PrimFuncBuilder) -> Any:  # noqa: ANN401
        scores = f.param("scores", (1, op.classes, op.height, op.width))
        tables = sampling_of(op).params(f)
        y = f.param("y", (1, op.out_height, op.out_width), "uint8")

        def body() -> None:
            out = ir.view(y, (plane,))
            with gpu.launch((blocks,), (threads,)) as ((bx,), (tx,)):
                index = ir.bind(bx * threads + tx)
                with gpu.guard(vectors, blocks * threads, index):
                    first = ir.bind(index * pixels)
                    sample = tables.at(first, pixels)
                    best = Best([sample.value(scores, 0, i) for i in range(pixels)])
                    with ir.serial(1, op.classes) as k:
                        for i in range(pixels):
                            best.see(i, k, sample.value(scores, k, i))
                    ir.store(out, best.labels(), first, lanes=pixels)

        return body

    return ir.prim_func("label_end", signature)
