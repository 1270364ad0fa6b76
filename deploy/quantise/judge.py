"""What a network in 8 bits finds beside the same in float32, on the same frames."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from deploy.graph.ends import with_logits_output
from deploy.graph.reference import OnnxSession
from deploy.images import resize_labels
from deploy.metadata import Metadata
from deploy.quantise.frames import Frames
from deploy.quantise.scales import LEVELS
from deploy.resolution import Resolution
from hmseg.train.confusion import Confusion

# Two scores that lie within so many quanta of 8 bits, of the range of a frame's scores, are a tie:
# to round them alone may exchange them.
TIE_QUANTA = 2
_SAMPLED = 8192  # pixels of a frame whose scores are kept
Run = Callable[[NDArray[Any]], Sequence[NDArray[Any]]]
"""What a network takes for a frame -> its labels or masks, and its logits, the last; logits alone
where they are its output."""


@dataclass(frozen=True)
class Figures:
    """Of one network on some frames.

    `equal` is the share of the labels, or of masks' pixels, that float32 finds too, `equal_clear`
    that among the pixels where float32's margin is no tie (`TIE_QUANTA`). `score_error` is the root
    mean square of what its scores are off by, over the standard deviation of float32's. `miou` is
    in 0..1, None without labels.
    """

    frames: int
    equal: float
    equal_clear: float
    score_error: float
    miou: float | None

    def to_json(self) -> dict[str, Any]:
        """For --json."""
        return asdict(self)


@dataclass(frozen=True)
class _Wanted:
    """Of float32 on one frame: what it finds, where that is no tie, and some scores."""

    found: NDArray[Any]
    clear: NDArray[np.uint8]  # a bit for each of the places of `found`
    scores: NDArray[np.float32]


class Judge:
    """Compares with float32, which is to be shown first (`show`) on every frame."""

    def __init__(self, frames: Frames, threads: int | None = None) -> None:
        self._frames, self._threads = frames, threads
        self._metadata = frames.metadata
        self._wanted: dict[int, _Wanted] = {}

    def show(self, index: int, outputs: Sequence[NDArray[Any]]) -> None:
        """What float32 gives on a frame: its labels or masks, and its logits, the last."""
        found, logits = _both(self._metadata, outputs)
        clear = _clear(logits, self._metadata.threshold).reshape(found.shape)
        self._wanted[index] = _Wanted(found, np.packbits(clear), _sampled(logits))

    def figures(self, model: onnx.ModelProto, indices: Sequence[int]) -> Figures:
        """Of a graph with the same ends. Raises UserError for a frame that cannot be read."""
        session = OnnxSession(with_logits_output(model), threads=self._threads)
        return self.figures_of(session.run, indices)

    def figures_of(self, run: Run, indices: Sequence[int]) -> Figures:
        """The same of anything that runs."""
        confusion = Confusion(len(self._metadata.classes))
        equal = clear_equal = clear = total = 0
        squares = count = 0.0
        for index in indices:
            wanted = self._wanted[index]
            found, logits = _both(self._metadata, run(self._frames.given(index)))
            same = found == wanted.found
            is_clear = np.unpackbits(wanted.clear, count=same.size).astype(bool).reshape(same.shape)
            equal, total = equal + int(same.sum()), total + same.size
            clear_equal += int((same & is_clear).sum())
            clear += int(is_clear.sum())
            off = (_sampled(logits) - wanted.scores).astype(np.float64)
            squares, count = squares + float(np.square(off).sum()), count + off.size
            self._count(confusion, index, found)
        spread = self._spread(indices)
        error = math.sqrt(squares / count)
        return Figures(
            len(indices), equal / total, clear_equal / clear if clear else 1.0,
            error / spread if spread else error, self._miou(confusion),
        )  # fmt: skip

    def float_figures(self, indices: Sequence[int]) -> Figures:
        """Of float32 itself."""
        confusion = Confusion(len(self._metadata.classes))
        for index in indices:
            self._count(confusion, index, self._wanted[index].found)
        return Figures(len(indices), 1.0, 1.0, 0.0, self._miou(confusion))

    def _count(self, confusion: Confusion, index: int, found: NDArray[Any]) -> None:
        if self._frames.labelled:
            truth = self._frames.truth(index)
            confusion.add(truth, resize_labels(found, Resolution(*truth.shape)))

    def _miou(self, confusion: Confusion) -> float | None:
        return confusion.miou if self._frames.labelled and confusion.matrix.any() else None

    def _spread(self, indices: Sequence[int]) -> float:
        """The standard deviation of float32's scores on frames."""
        scores = [self._wanted[index].scores.astype(np.float64) for index in indices]
        count = sum(s.size for s in scores)
        mean = sum(float(s.sum()) for s in scores) / count
        return math.sqrt(sum(float(np.square(s - mean).sum()) for s in scores) / count)


def _both(
    metadata: Metadata, outputs: Sequence[NDArray[Any]]
) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Labels or masks, and logits."""
    logits = outputs[-1]
    return (outputs[0] if len(outputs) == 2 else metadata.found_in(logits)), logits


def _clear(logits: NDArray[np.float32], threshold: float | None) -> NDArray[np.bool_]:
    """Where what is found is no tie."""
    tie = TIE_QUANTA / LEVELS * float(logits.max() - logits.min())
    if threshold is not None:
        clear: NDArray[np.bool_] = np.abs(logits - threshold) > tie
        return clear
    if len(logits) < 2:
        return np.ones(logits.shape[1:], np.bool_)
    best = second = np.full(logits.shape[1:], -np.inf, np.float32)
    for plane in logits:
        second = np.maximum(second, np.minimum(best, plane))
        best = np.maximum(best, plane)
    clear = best - second > tie
    return clear


def _sampled(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    step = max(1, math.ceil(math.sqrt(logits[0].size / _SAMPLED)))
    return logits[:, step // 2 :: step, step // 2 :: step].copy()
