"""What a network should make of each image, and how far float32 strays from it by itself."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray

from deploy.graph.float64 import evaluate, multiply_adds
from deploy.graph.float64_resize import NoTruthError
from deploy.graph.jitter import jittered
from deploy.graph.reference import OnnxSession, Opener
from deploy.graph.rounded import with_rounded_maps
from deploy.graph.stored import has_pairs
from deploy.noise import UNIT, Deviation
from deploy.precision import BF16
from lut.errors import UserError
from lut.ops import DType

# Evaluated in double, for an image: a second or two.
MOST_MULTIPLY_ADDS = 3e9
# From so many on, onnxruntime takes a second or more for an image, and a check runs it as seldom as
# it can.
HEAVY_MULTIPLY_ADDS = 2e10
# Noise below this many roundings of the scores themselves is luck: two evaluations may be equal.
LEAST_ROUNDINGS = 4
# How much further from the truth than from each other two evaluations of onnxruntime may be, which
# share most of their code; what is further from double than that computes something else.
TRUST = 16
# An image whose noise is so often that of the calmest, of the scores (or 16 roundings), is one on
# which the network amplifies every rounding: there two evaluations show a part of it only.
OUTLIER = 8
# Noise of more than this share of the scores is no longer one.
MOST_NOISE = 1 / 8
# What jumps: a rounding decides which of two values goes on.
_JUMPS = {
    "ArgMax", "Ceil", "Equal", "Floor", "Greater", "GreaterOrEqual", "Less", "LessOrEqual",
    "MaxUnpool", "QuantizeLinear", "Round", "ScatterElements", "ScatterND", "Sign", "TopK",
}  # fmt: skip
_JITTERS = (LEAST_ROUNDINGS, 4 * LEAST_ROUNDINGS, 4 * LEAST_ROUNDINGS, 16 * LEAST_ROUNDINGS)
_ONCE = Deviation(1, 1)
ROUNDINGS: dict[DType, float] = {BF16.maps: BF16.unit}


@dataclass(frozen=True)
class Expected:
    """Of one image: class scores (K, H, W), and the precision's own deviation from them."""

    scores: NDArray[Any]
    noise: Deviation


class TwoSessions:
    """A graph in onnxruntime twice: optimised, and node by node as it is written. They compute the
    same sums in another order, so that they differ by float32's noise. Where a rounding may make a
    graph jump (`jumps`), how often it does is luck: there several others have every weight off by
    some roundings, few and many, and what counts is the one that is the furthest off.

    Raises UserError for a graph that onnxruntime does not take.
    """

    def __init__(self, graph: onnx.ModelProto | Opener, *, jumps: bool = False) -> None:
        self.optimised = OnnxSession(graph)
        others: Iterable[onnx.ModelProto | Opener] = [graph]
        if jumps and isinstance(graph, onnx.ModelProto):  # one in memory at a time
            jitters = _JITTERS[2:] if is_heavy(graph) else _JITTERS
            others = (jittered(graph, seed, many) for seed, many in enumerate(jitters))
        self._others = [OnnxSession(other, optimised=False) for other in others]

    def run(
        self, given: NDArray[Any], names: Sequence[str] | None = None
    ) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
        """The outputs of both for one input with its batch axis. Raises UserError where onnxruntime
        fails on it."""
        found = self.optimised.run_batch(given, names)
        others = [session.run_batch(given, names) for session in self._others]
        return found, max(others, key=lambda other: Deviation.between(other[-1], found[-1]).rms)


def is_heavy(graph: onnx.ModelProto) -> bool:
    """Whether an image takes onnxruntime a second or more, as far as the sizes are known."""
    return HEAVY_MULTIPLY_ADDS <= multiply_adds(graph) < math.inf


def jumps(graph: onnx.ModelProto) -> bool:
    """Whether a node before the class scores, the graph's last output, may turn a rounding into
    another value: a comparison, a rounding, an unpooling."""
    makers = {name: node for node in graph.graph.node for name in node.output}
    todo, seen = [graph.graph.output[-1].name], set()
    while todo:
        node = makers.get(todo.pop())
        if node is None or node.output[0] in seen:
            continue
        if node.op_type in _JUMPS:
            return True
        seen.add(node.output[0])
        todo += node.input
    return False


def noise_between(scores: NDArray[Any], others: NDArray[Any]) -> Deviation:
    """Float32's noise by two evaluations of the same."""
    least = Deviation.size(scores) * (LEAST_ROUNDINGS * UNIT)
    return Deviation.between(others, scores).or_more(least)


class Noise(NamedTuple):
    """On one image, and how large the scores are there."""

    noise: Deviation
    size: Deviation


def amplifying(found: Mapping[str, Noise], images: Mapping[str, NDArray[Any]]) -> list[str]:
    """The images on which the network amplifies every rounding (`OUTLIER`)."""
    shares = {name: own.noise.over(own.size).rms for name, own in found.items()}
    # One of one colour may be calm by luck.
    lively = [shares[name] for name in found if not _is_one_colour(images[name])]
    calm = max(min(lively or shares.values()), 4 * LEAST_ROUNDINGS * UNIT)
    return [name for name, share in shares.items() if share > OUTLIER * calm]


def pooled(
    found: Mapping[str, Noise],
    images: Mapping[str, NDArray[Any]],
    factors: Mapping[str, Deviation] | None = None,
    *,
    jumping: bool = False,
    on_grids: bool = False,
) -> dict[str, Deviation]:
    """The noise that counts on each image.

    `factors` says of some how much more it is than two evaluations show; that of the first image
    holds for all on which it is not `amplifying`, of which `TRUST` is thought where it is not
    known. Pixels of an image of one colour all round alike: no mean over them is smaller than the
    largest, and both may be small by luck, so that they are at least the median of all images, in
    the scores' unit or of their size, whichever is less. Where the graph is `jumping` it is the
    most of all images. It is `MOST_NOISE` of the scores at most. Raises UserError where it is more
    on every image, unless maps lie on grids (`deploy.graph.stored`): there one rounding moves a
    number by a whole quantum.
    """
    if not on_grids and all(own.noise.rms > MOST_NOISE * own.size.rms for own in found.values()):
        raise UserError(
            "onnxruntime with its optimisations gives other scores than without them, by more than "
            f"{MOST_NOISE:.0%} on every image: there is nothing to compare with"
        )
    known, amplified, first = factors or {}, amplifying(found, images), next(iter(found))
    usual = known.get(first, _ONCE) if first not in amplified else _ONCE
    scaled = {
        name: own.noise.times(known.get(name, _ONCE * TRUST) if name in amplified else usual)
        for name, own in found.items()
    }
    absolute = _median(list(scaled.values()))
    relative = _median([noise.over(found[name].size) for name, noise in scaled.items()])
    most = _ONCE * 0
    for noise in scaled.values():
        most = most.or_more(noise)
    noises = {}
    for name, noise in scaled.items():
        noise = most if jumping else noise
        size = found[name].size
        if _is_one_colour(images[name]):
            noise = noise.or_more(absolute.or_less(relative.times(size)))
            noise = Deviation(noise.largest, noise.largest)
        noises[name] = noise.or_less(size * MOST_NOISE)
    return noises


def rounding_noise(
    rounded: NDArray[Any], scores: NDArray[Any], given: NDArray[Any], unit: float
) -> Deviation:
    """How far rounding every map moves the scores of an image or tensor: at least as far as one
    rounding of each would. On one of one colour, whose pixels round alike, no mean is smaller than
    the largest. It is `MOST_NOISE` of the scores at most."""
    size = Deviation.size(scores)
    noise = Deviation.between(rounded, scores).or_more(size * unit)
    if _is_one_colour(given):
        noise = Deviation(noise.largest, noise.largest)
    return noise.or_less(size * MOST_NOISE)


def _median(values: Sequence[Deviation]) -> Deviation:
    return Deviation(median(v.rms for v in values), median(v.largest for v in values))


def _is_one_colour(image: NDArray[Any]) -> bool:
    """Of (H, W, C) or (C, H, W)."""
    return any(bool((image == first).all()) for first in (image[:1, :1], image[:, :1, :1]))


class Expectations:
    """Of a graph of one image or tensor, for some inputs without their batch axis, by name.

    The scores, float (1, K, H, W), are its last output. Those for the first input, and for any that
    the network amplifies roundings on, are evaluated in double, up to `most` multiply-adds each:
    that shows how far both of onnxruntime's evaluations are from the truth. Raises UserError for a
    graph that onnxruntime does not take, or where it fails or contradicts itself.

    Where `maps` are of a low precision, the noise is that of their rounding (`rounding_noise`).
    """

    def __init__(
        self,
        graph: onnx.ModelProto,
        inputs: Mapping[str, NDArray[Any]],
        most: float = MOST_MULTIPLY_ADDS,
        maps: DType = "float32",
    ) -> None:
        self._graph, self._name, self._inputs = graph, graph.graph.output[-1].name, inputs
        jumping = jumps(graph)
        self._sessions = TwoSessions(graph, jumps=jumping)
        self._truth: dict[str, NDArray[np.float32]] = {}
        self._affordable = multiply_adds(graph) <= most
        seen = {name: self._seen(given) for name, given in inputs.items()}
        factors = {}
        for name in dict.fromkeys([*list(inputs)[:1], *amplifying(seen, inputs)]):
            factor = self._compare_with_truth(name, seen[name])
            if factor is not None:
                factors[name] = factor
        self._noises = pooled(seen, inputs, factors, jumping=jumping, on_grids=has_pairs(graph))
        self._rounds = maps in ROUNDINGS
        if self._rounds:
            session = OnnxSession(with_rounded_maps(graph, maps), optimised=False)
            for name, given in inputs.items():
                found = session.run_batch(given[None], [self._name])[0][0]
                noise = rounding_noise(found, self[name].scores, given, ROUNDINGS[maps])
                self._noises[name] = noise

    def _seen(self, given: NDArray[Any]) -> Noise:
        found, other = (run[0][0] for run in self._sessions.run(given[None], [self._name]))
        return Noise(noise_between(found, other), Deviation.size(found))

    def _compare_with_truth(self, name: str, seen: Noise) -> Deviation | None:
        """How much further from the truth than from each other both evaluations are; None where
        that is not known."""
        if not self._affordable:
            return None
        given = self._inputs[name][None]
        try:
            truth = evaluate(self._graph, given, [self._name])[0][0]
        except NoTruthError:
            self._affordable = False
            return None
        found = self._sessions.optimised.run_batch(given, [self._name])[0][0]
        own = Deviation.between(found, truth)
        if not own.within(seen.noise * TRUST):
            return None
        self._truth[name] = truth.astype(np.float32)
        return own.over(seen.noise).or_more(_ONCE)

    def look_closer(self, name: str) -> bool:
        """Evaluate an image in double that was not; False where nothing is known better then.

        On some images of one colour onnxruntime strays from the truth, twice alike. Rounding to low
        precision strays further.
        """
        if name in self._truth or self._rounds:
            return False
        noise = self._noises[name]
        found = self[name].scores
        factor = self._compare_with_truth(name, Noise(noise, Deviation.size(found)))
        if factor is None:
            return False
        self._noises[name] = noise.times(factor).or_less(Deviation.size(found) * MOST_NOISE)
        return True

    def __getitem__(self, name: str) -> Expected:
        """For one of the inputs."""
        if name in self._truth:
            return Expected(self._truth[name], self._noises[name])
        given = self._inputs[name][None]
        scores = self._sessions.optimised.run_batch(given, [self._name])[0][0]
        return Expected(scores, self._noises[name])
