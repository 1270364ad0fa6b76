"""What a network should make of each image, and how far float32 strays from it by itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray

from deploy.graph.float64 import evaluate, multiply_adds
from deploy.graph.float64_ops import NoTruthError
from deploy.graph.reference import OnnxSession, Opener
from deploy.noise import UNIT, Deviation
from lut.errors import UserError

# Evaluated in double for the first image: a second or two.
MOST_MULTIPLY_ADDS = 3e9
# Noise below this many roundings of the scores themselves is luck: two evaluations may be equal.
LEAST_ROUNDINGS = 4
# Double precision is believed where onnxruntime is no further from it than this many times the
# noise; where both disagree by more, they do not compute the same.
TRUST = 16
# Where onnxruntime differs from itself by this share of the scores, one of the two is wrong.
MOST_NOISE = 1 / 8


@dataclass(frozen=True)
class Expected:
    """Of one image: class scores (K, H, W), and float32's own deviation from them."""

    scores: NDArray[Any]
    noise: Deviation


class TwoSessions:
    """A graph in onnxruntime twice: optimised, and node by node as it is written. They compute the
    same sums in another order, so that they differ by float32's noise.

    Raises UserError for a graph that onnxruntime does not take.
    """

    def __init__(self, graph: onnx.ModelProto | Opener) -> None:
        self.optimised = OnnxSession(graph)
        self.plain = OnnxSession(graph, optimised=False)

    def run(
        self, given: NDArray[Any], names: Sequence[str] | None = None
    ) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
        """The outputs of both for one input with its batch axis. Raises UserError where onnxruntime
        fails on it."""
        return self.optimised.run_batch(given, names), self.plain.run_batch(given, names)


def noise_between(scores: NDArray[Any], others: NDArray[Any]) -> Deviation:
    """Float32's noise by two evaluations of the same. Raises UserError where they have too little
    in common."""
    size = Deviation.size(scores)
    noise = Deviation.between(others, scores).or_more(size * (LEAST_ROUNDINGS * UNIT))
    if noise.rms > MOST_NOISE * size.rms:
        raise UserError(
            "onnxruntime with its optimisations differs from onnxruntime without them by "
            f"{noise.rms / size.rms:.0%} of the scores: there is nothing to compare with"
        )
    return noise


class Noise(NamedTuple):
    """On one image, and how large the scores are there."""

    noise: Deviation
    size: Deviation


def pooled(found: Mapping[str, Noise], images: Mapping[str, NDArray[Any]]) -> dict[str, Deviation]:
    """The noise on each image, where that of one alone may be small by luck: at least the median of
    all, in the scores' unit or of their size, whichever is less. Pixels of an image of one colour
    all round alike, so that no mean over them is smaller than the largest."""
    absolute = _median([own.noise for own in found.values()])
    relative = _median([own.noise.over(own.size) for own in found.values()])
    noises = {}
    for name, own in found.items():
        noise = own.noise.or_more(absolute.or_less(relative.times(own.size)))
        alike = _is_one_colour(images[name])
        noises[name] = Deviation(noise.largest, noise.largest) if alike else noise
    return noises


def _median(values: Sequence[Deviation]) -> Deviation:
    return Deviation(median(v.rms for v in values), median(v.largest for v in values))


def _is_one_colour(image: NDArray[Any]) -> bool:
    """Of (H, W, C) or (C, H, W)."""
    return any(bool((image == first).all()) for first in (image[:1, :1], image[:, :1, :1]))


class Expectations:
    """Of a graph of one image or tensor, for some inputs without their batch axis, by name.

    The scores, float (1, K, H, W), are its last output. Those for the first input are evaluated in
    double, up to `most` multiply-adds, which shows how far both of onnxruntime's evaluations are
    from the truth. Raises UserError for a graph that onnxruntime does not take, or where it fails
    or contradicts itself.
    """

    def __init__(
        self,
        graph: onnx.ModelProto,
        inputs: Mapping[str, NDArray[Any]],
        most: float = MOST_MULTIPLY_ADDS,
    ) -> None:
        self._name, self._inputs = graph.graph.output[-1].name, inputs
        self._sessions = TwoSessions(graph)
        self._truth: dict[str, NDArray[np.float32]] = {}
        seen: dict[str, Noise] = {}
        further = Deviation(1, 1)
        for name, given in inputs.items():
            both = self._sessions.run(given[None], [self._name])
            found, other = (run[0][0] for run in both)
            noise = noise_between(found, other)
            if not seen and multiply_adds(graph) <= most:
                further = self._compare_with_truth(graph, name, found, noise)
            seen[name] = Noise(noise, Deviation.size(found))
        self._noises = {n: noise.times(further) for n, noise in pooled(seen, inputs).items()}

    def _compare_with_truth(
        self, graph: onnx.ModelProto, name: str, found: NDArray[Any], noise: Deviation
    ) -> Deviation:
        """How much further from the truth than from each other both evaluations are."""
        try:
            truth = evaluate(graph, self._inputs[name][None], [self._name])[0][0]
        except NoTruthError:
            return Deviation(1, 1)
        own = Deviation.between(found, truth)
        if not own.within(noise * TRUST):
            return Deviation(1, 1)
        self._truth[name] = truth.astype(np.float32)
        return own.over(noise).or_more(Deviation(1, 1))

    def __getitem__(self, name: str) -> Expected:
        """For one of the inputs."""
        if name in self._truth:
            return Expected(self._truth[name], self._noises[name])
        given = self._inputs[name][None]
        scores = self._sessions.optimised.run_batch(given, [self._name])[0][0]
        return Expected(scores, self._noises[name])
