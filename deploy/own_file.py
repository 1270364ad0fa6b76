"""The user's own file in onnxruntime, untouched: what the graph that was made of it is held to."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from deploy.graph.ends import feed, in_own_layout
from deploy.graph.expected import (
    LEAST_ROUNDINGS,
    Expected,
    Noise,
    TwoSessions,
    jumps,
    noise_between,
    pooled,
)
from deploy.graph.first_difference import bisect, how_they_differ
from deploy.graph.float64 import evaluate
from deploy.graph.float64_resize import resize
from deploy.graph.reference import OnnxSession, Opener, with_outputs
from deploy.graph.source import Source
from deploy.graph.stored import has_pairs
from deploy.metadata import Metadata
from deploy.noise import UNIT, Deviation
from deploy.precision import FP16, FP32, Precision
from deploy.verify import Comparison, deviation_of
from lut.errors import WorkError

_HALVES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
_HALF_PIXEL = {"mode": b"linear", "coordinate_transformation_mode": b"half_pixel"}


@dataclass(frozen=True)
class OwnFile:
    """A user's own file, and how it was read.

    `model` is the file as it is, `open` makes a session of it, `output` is the one of its outputs
    that was read, `feed` makes of an image uint8 (H, W, C) what its input takes, with the batch
    axis. `scores` is the tensor of the deployable graph, float32 (1, K, h, w), that the output was
    traced back to; `tail` are the nodes between the two, which `layout` lays the scores out for.
    `negated`: their negative counts. `decides`: the output is labels or masks, of whatever type.
    """

    model: onnx.ModelProto
    open: Opener
    output: str
    feed: Callable[[NDArray[np.uint8]], NDArray[Any]]
    scores: str
    tail: onnx.ModelProto
    layout: Callable[[NDArray[Any]], NDArray[Any]]
    negated: bool = False
    decides: bool = False

    @cached_property
    def precision(self) -> Precision:
        """Half's where the file computes in it, as we do in float32."""
        graph = self.model.graph
        kinds = {tensor.data_type for tensor in graph.initializer}
        kinds.update(v.type.tensor_type.elem_type for v in (*graph.input, *graph.value_info))
        kinds.update(a.i for node in graph.node for a in node.attribute if a.name == "to")
        return FP16 if kinds.intersection(_HALVES) else FP32

    def given(self, image: NDArray[np.uint8]) -> NDArray[Any]:
        """What `feed` makes of an image, in the type of the file's input."""
        constants = {tensor.name for tensor in self.model.graph.initializer}
        taken = next(v for v in self.model.graph.input if v.name not in constants)
        kind = helper.tensor_dtype_to_np_dtype(taken.type.tensor_type.elem_type)
        return self.feed(image).astype(kind)

    def end(self, scores: NDArray[Any]) -> NDArray[Any]:
        """What the file's output is for the scores (1, K, h, w): evaluated in double."""
        return evaluate(self.tail, self.layout(scores.astype(np.float64)), [self.output])[0]

    def is_decided(self, scores: NDArray[Any], allowed: float) -> NDArray[np.bool_]:
        """Where the file's labels or masks are the same for all scores that lie within `allowed` of
        these, (1, K, h, w)."""
        values = scores.astype(np.float64)
        if any(node.op_type == "ArgMax" for node in self.tail.graph.node):
            best = np.sort(values, axis=1)[:, -2:]
            decided: NDArray[np.bool_] = best[:, 1] - best[:, 0] > 2 * allowed
            return decided
        same: NDArray[np.bool_] = self.end(values + allowed) == self.end(values - allowed)
        return same


def own_file(source: Source) -> OwnFile | None:
    """That behind a source; None for a network of the zoo."""
    read = source.imported
    if read is None:
        return None
    return OwnFile(
        model=read.file.model,
        open=read.file.session,
        output=read.ends.output,
        feed=partial(feed, read.ends, source.metadata),
        scores=read.scores,
        tail=read.tail,
        layout=partial(in_own_layout, read.ends),
        negated=read.ends.negated,
        decides=read.ends.end in ("labels", "masks"),
    )


def check_reading(
    own: OwnFile, graph: onnx.ModelProto, metadata: Metadata,
    images: Mapping[str, NDArray[np.uint8]],
) -> list[Comparison]:  # fmt: skip
    """The deployable graph, whose last output is its logits, against the file that it was made of,
    both in onnxruntime.

    Side ``file``: the file's own output, against what double precision makes of the graph's scores
    by the nodes that the reading left out. Side ``ends``: the graph's class scores and labels or
    masks against a resize and a decision of these scores in double. Raises UserError where
    onnxruntime fails, and WorkError for an output of another shape.
    """
    theirs = TwoSessions(own.open)
    found, logits = (graph.graph.output[i].name for i in (0, -1))
    names = list(dict.fromkeys([found, logits, own.scores]))
    jumping = jumps(graph)
    ours = TwoSessions(with_outputs(graph, names), jumps=jumping)
    comparisons, seen = [], {}
    for name, image in images.items():
        wanted, again = (run[0] for run in theirs.run(own.given(image), [own.output]))
        outputs, others = (
            dict(zip(names, run, strict=True))
            for run in ours.run(metadata.network_input(image)[None])
        )
        scores = outputs[own.scores]
        seen[name] = _Seen(wanted, again, scores, others[own.scores])
        ends = outputs[found][0], outputs[logits][0]
        comparisons.append(_compare_ends(own, name, metadata, scores, *ends))
    noises = pooled(
        {name: _noise(own, both) for name, both in seen.items()}, images, jumping=jumping,
        on_grids=has_pairs(graph),
    )  # fmt: skip
    for name, both in seen.items():
        comparisons.append(_compare_output(own, name, both, noises[name]))
    return comparisons


class _Seen(NamedTuple):
    """Of one image: the file's output and the graph's scores, from both sessions each."""

    wanted: NDArray[Any]
    again: NDArray[Any]
    scores: NDArray[Any]
    others: NDArray[Any]


def _noise(own: OwnFile, seen: _Seen) -> Noise:
    """Of a decision that of the scores; else that of the output, of the file in its own type or of
    the graph in float32, whichever is more."""
    if own.decides:
        return Noise(noise_between(seen.scores, seen.others), Deviation.size(seen.scores))
    ours = Deviation.between(own.end(seen.others), own.end(seen.scores))
    noise = noise_between(seen.wanted, seen.again).or_more(ours)
    return Noise(noise, Deviation.size(seen.wanted))


def _compare_output(own: OwnFile, image: str, seen: _Seen, noise: Deviation) -> Comparison:
    found = own.end(seen.scores)
    if found.shape != seen.wanted.shape:
        raise WorkError(
            f"the ONNX file was misread: its output {own.output!r} has shape {seen.wanted.shape}, "
            f"not {found.shape}"
        )
    if not own.decides:
        return deviation_of("file", image, found, Expected(seen.wanted, noise), own.precision)
    allowed = own.precision.allowed(noise, Deviation.size(seen.scores).largest).largest
    differing = seen.wanted != found
    unexplained = differing & own.is_decided(seen.scores, allowed).reshape(differing.shape)
    return Comparison(
        "file", image, 0.0, allowed, float(differing.mean()), float(unexplained.mean()),
        noise.largest, 0.0, allowed, noise.rms,
    )  # fmt: skip


def _compare_ends(
    own: OwnFile, image: str, metadata: Metadata,
    scores: NDArray[Any], found: NDArray[Any], logits: NDArray[Any],
) -> Comparison:  # fmt: skip
    """What the ends add, a resize and a decision, is exact but for a few roundings of the scores,
    and of the resize's coordinates, each of which counts as often as there are pixels before it."""
    scores = scores.astype(np.float64)
    sizes = np.array([*scores.shape[:2], *metadata.resolution])
    wanted = resize(_HALF_PIXEL, -scores if own.negated else scores, sizes=sizes)[0]
    resized = scores.shape[2:] != tuple(metadata.resolution)
    roundings = max(LEAST_ROUNDINGS, max(scores.shape[2:]) / 2 if resized else 0)
    noise = Deviation.size(wanted) * (roundings * UNIT)
    comparison = deviation_of("ends", image, logits, Expected(wanted, noise))
    if metadata.output == "logits":
        return comparison
    differing = float((found != metadata.found_in(logits)).mean())
    return replace(comparison, differing_share=differing, unexplained_share=differing)


def first_misread(
    own: OwnFile, graph: onnx.ModelProto, metadata: Metadata, image: NDArray[np.uint8]
) -> str:
    """The first node of the file whose output, where the graph has a tensor of that name, is
    another there; in words."""
    floats = {
        v.name for v in graph.graph.value_info if v.type.tensor_type.elem_type == TensorProto.FLOAT
    }
    given = metadata.network_input(image)[None]
    nodes = [node for node in own.model.graph.node if floats.intersection(node.output[:1])]

    def probe(node: onnx.NodeProto) -> str:
        name = node.output[0]
        wanted, again = (
            run[0] for run in TwoSessions(with_outputs(own.model, [name])).run(own.given(image))
        )
        found = OnnxSession(with_outputs(graph, [name])).run_batch(given)[0]
        return how_they_differ(Expected(wanted, noise_between(wanted, again)), found, own.precision)

    found = bisect(nodes, probe)
    return str(found) if found else "no tensor that both have shows where"
