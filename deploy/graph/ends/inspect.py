"""What a graph takes and gives, found in its declared input and output and in its last nodes."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import onnx
from onnx import TensorProto

from deploy.graph.ends.tensors import (
    Tensors,
    describe,
    describe_node,
    inputs_of,
    number,
    quoted,
    type_and_shape,
)
from deploy.graph.ends.values import Values, values_of
from deploy.graph.ends.walk import (
    Decision,
    Scores,
    Step,
    above,
    channel_axis,
    find_decision,
    made_of_labels,
    scores_behind,
)
from deploy.metadata import CHANNELS, MOST_CLASSES
from deploy.resolution import Resolution
from lut.errors import UserError

_MOST_NAMES = 20  # of outputs, in a message

End = Literal["scores", "softmax", "sigmoid", "labels", "masks"]


@dataclass(frozen=True)
class InputEnd:
    """An image: uint8 as it is, or float32 that has been normalised."""

    resolution: Resolution
    channels: int  # 1, 3 or 4
    is_uint8: bool
    channels_last: bool


@dataclass(frozen=True)
class GraphEnds:
    """What a graph takes and gives.

    `end` says what its output is: the class scores as they are or scaled, their softmax (or its
    logarithm) or sigmoid, the labels by an arg max, or the masks by a comparison (of one class:
    labels 0 and 1). `scores` is the tensor that the output is rebuilt from, `steps` is what lies
    between it and the output, or what the output decides by.
    """

    input: InputEnd
    output: str
    end: End
    scores: str
    scores_shape: tuple[int, ...]
    class_axis: int | None  # of the scores; None where there is one class, and no axis for it
    num_scores: int
    scores_size: Resolution
    steps: tuple[Step, ...]
    # Of a comparison at the end: the class is there where its score, or `negated` the negative of
    # it, is above. None where the file decides nothing, or by an arg max.
    threshold: float | None = None
    negated: bool = False
    values: Values = "any"  # of the scores

    @property
    def resolution(self) -> Resolution:
        """Of the image."""
        return self.input.resolution

    @property
    def num_classes(self) -> int:
        """Two where one score tells them apart."""
        return max(2, self.num_scores)

    @property
    def is_binary(self) -> bool:
        """Whether one score tells two classes apart."""
        return self.num_scores == 1

    @property
    def independent(self) -> bool:
        """Whether the file says that classes do not exclude each other."""
        said = self.end in ("sigmoid", "masks") or self.kind == "sigmoid"
        return not self.is_binary and said

    @property
    def kind(self) -> Values:
        """What an output of scores holds, where these are no probabilities to be walked past."""
        return self.values if self.end == "scores" else "any"

    def score_threshold(self, value: float) -> float:
        """What a score is compared with where the file's output is compared with `value`.

        Raises UserError where the output is no such number, or is a sigmoid's and `value` is not
        between 0 and 1.
        """
        if self.end not in ("scores", "sigmoid"):
            what = {"labels": "labels", "masks": "a mask"}.get(self.end, "a softmax")
            raise UserError(
                f"the ONNX output {quoted(self.output)} is {what}, which takes no threshold"
            )
        return above(_undo(self.steps, value), inclusive=False)


def inspect_ends(model: onnx.ModelProto, output_name: str | None = None) -> GraphEnds:
    """Read the ends of a checked graph whose sizes are all known (`deploy.reading`).

    Accepted: one image in, uint8 or float32, (1, C, H, W) or (1, H, W, C) of 1, 3 or 4 channels.
    Out, where there are several the one called `output_name`: class scores float32 with the classes
    on axis 1 or last, with or without a batch axis, at any stride, behind which nothing but
    softmax, sigmoid, scaling, ArgMax, a comparison with a number, casts and moves of axes stands.
    Raises UserError that says what was found and what is accepted.
    """
    taken = _inspect_input(model.graph)
    tensors, output = Tensors(model.graph), _choose_output(model.graph, output_name)
    decision = find_decision(tensors, output)
    read = _Reader(tensors, taken.resolution, output)
    if decision is None:
        found = read.scores(output)
        end: End = "scores"
        ops = {step.op for step in found.steps}
        if ops & {"Softmax", "LogSoftmax", "Sigmoid"}:
            end = "sigmoid" if ops <= {"Sigmoid", "Mul"} else "softmax"
        threshold, negated = None, False
    else:
        found, end = read.decided(decision), decision.kind
        negated, threshold = decision.negated, None
        if decision.kind == "masks":
            value = _undo(found.steps, decision.threshold)
            threshold = above(-value if negated else value, inclusive=decision.inclusive)
    if found.num > MOST_CLASSES:
        raise UserError(
            f"the ONNX output has {found.num} classes; labels are uint16: at most {MOST_CLASSES}"
        )
    shape = tensors.shape(found.tensor)
    return GraphEnds(
        taken, output, end, found.tensor, shape, found.axis, found.num, Resolution(*found.size),
        found.steps, threshold, negated, values_of(tensors, found.tensor),
    )  # fmt: skip


def _undo(steps: tuple[Step, ...], value: float) -> float:
    for step in reversed(steps):
        value = step.undo(value)
    return value


def _inspect_input(graph: onnx.GraphProto) -> InputEnd:
    inputs = inputs_of(graph)
    if len(inputs) != 1:
        names = ", ".join(quoted(value.name) for value in inputs[:_MOST_NAMES])
        raise UserError(
            f"the ONNX graph has {len(inputs)} inputs ({names}); one image is supported: cut it "
            "with onnx.utils.extract_model"
        )
    element, shape = type_and_shape(inputs[0])
    what = f"{quoted(inputs[0].name)} is {describe(inputs[0])}"
    known = element in (TensorProto.UINT8, TensorProto.FLOAT) and len(shape) == 4
    if known and shape[0] == 1 and min(shape) > 0:
        first, last = shape[1] in CHANNELS, shape[3] in CHANNELS
        if first != last:
            height, width = shape[2:] if first else shape[1:3]
            channels = shape[1] if first else shape[3]
            size = Resolution(height, width)
            return InputEnd(size, channels, element == TensorProto.UINT8, channels_last=last)
        if first and last:
            raise UserError(
                f"the ONNX input {what}: which axis holds the channels cannot be told; export it "
                "with another height or width"
            )
    raise UserError(
        f"the ONNX input {what}; supported is one image of 1, 3 or 4 channels, uint8 or float32, "
        "(1, C, H, W) or (1, H, W, C), with every size fixed at export, or height and width by "
        "--resolution"
    )


def _choose_output(graph: onnx.GraphProto, wanted: str | None) -> str:
    names = [value.name for value in graph.output]
    if wanted is None and len(names) == 1:
        return str(names[0])
    if wanted is not None and wanted in names:
        return wanted
    listed = ", ".join(map(quoted, names[:_MOST_NAMES])) + ", ..." * (len(names) > _MOST_NAMES)
    if wanted is None:
        raise UserError(
            f"the ONNX graph has {len(names)} outputs; name the one to read with --output-name: "
            f"{listed}"
        )
    raise UserError(f"the ONNX graph has no output {quoted(wanted)}; it has {listed}")


class _Reader:
    """Finds the class scores behind a tensor, for an image of one size."""

    def __init__(self, tensors: Tensors, image: Resolution, output: str) -> None:
        self.tensors, self.image, self.output = tensors, image, output

    def decided(self, decision: Decision) -> Scores:
        """Behind the node that decides."""
        if decision.axis is None:
            return self.scores(decision.scores, softmax=False)
        if self.tensors.shape(decision.scores)[decision.axis] < 2:
            raise self._refused("is an ArgMax over one class, which is always 0")
        found = scores_behind(self.tensors, decision.scores, decision.axis, self._plausible)
        if found is None or channel_axis(self.tensors, found.tensor) not in (None, found.axis):
            raise self._refused("is an ArgMax over another axis than that of the classes")
        return found

    def scores(self, name: str, *, softmax: bool = True) -> Scores:
        """Of a float tensor whose class axis has to be found out."""
        if (node := made_of_labels(self.tensors, name)) is not None:
            raise self._refused(f"is made of what {describe_node(node)} has decided")
        if not self.tensors.is_float(name):
            raise self._refused("comes from no ArgMax and no comparison with a number")
        shape = self.tensors.shape(name)
        last = self.tensors.maker(name)
        softmaxed = last is not None and last.op_type in ("Softmax", "LogSoftmax")
        if last and softmaxed and shape[number(last, "axis", -1) % len(shape)] == 1:
            raise self._refused("is a softmax over one class, which is always the same")
        one = [side for side in shape if side > 1]
        if len(one) == 2 and self._fits(tuple(one), loosely=True):
            found = scores_behind(self.tensors, name, None, self._plausible)
            assert found is not None
            return found
        candidates = [
            found
            for axis, side in enumerate(shape)
            if side > 1
            and (found := scores_behind(self.tensors, name, axis, self._plausible, softmax=softmax))
        ]
        return self._choose(candidates)

    def _choose(self, candidates: list[Scores]) -> Scores:
        """The one whose axis is that of channels by ONNX's definition; else the one that a softmax
        goes over; else the one whose size goes best with the image's."""
        axes = [channel_axis(self.tensors, found.tensor) for found in candidates]
        judged = list(zip(candidates, axes, strict=True))
        left = [found for found, axis in judged if axis is not None and axis == found.axis]
        left = left or [found for found, axis in judged if axis is None]
        tests: tuple[Callable[[Scores], bool], ...] = (
            lambda found: any(step.op in ("Softmax", "LogSoftmax") for step in found.steps),
            lambda found: self._fits(found.size, loosely=False),
            lambda found: self._fits(found.size, loosely=True),
        )
        for test in tests:
            left = [found for found in left if test(found)] or left
        if len(left) == 1:
            return left[0]
        raise self._refused(
            "could have its classes on more than one axis"
            if left
            else "has no axis of classes with height and width of the image's proportions"
        )

    def _refused(self, what: str) -> UserError:
        return UserError(
            f"the ONNX output {self.tensors.describe(self.output)}, {what} (the image is "
            f"{self.image}); export class scores float32 (1, K, h, w) instead, or their ArgMax"
        )

    def _plausible(self, size: tuple[int, int]) -> bool:
        """Whether an image's scores may have this size: no side is shrunk much more than the other,
        and they do not look exchanged."""
        height, width = size
        ratio = height * self.image.width / (width * self.image.height)
        exchanged = self._fits((width, height), loosely=True)
        return self._fits(size, loosely=True) or (0.5 <= ratio <= 2 and not exchanged)

    def _fits(self, size: tuple[int, ...], *, loosely: bool) -> bool:
        """Whether both sides are the image's over one number: a whole one, rounded up or down; or
        `loosely` any, and one more or less."""
        pairs = list(zip(self.image, size, strict=True))
        if loosely:
            least = max(side / (small + 1) for side, small in pairs)
            most = min(side / (small - 1) if small > 1 else math.inf for side, small in pairs)
            return least < most
        strides = range(1, max(self.image) + 1)
        return any(all(small in (s // n, -(-s // n)) for s, small in pairs) for n in strides)
