"""Walking back from a graph's output to its class scores, past what decides and rescales."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx

from deploy.graph.ends.tensors import (
    Tensors,
    describe_node,
    number,
    permutation,
)
from lut.errors import UserError

MOVES = ("Identity", "Cast", "Squeeze", "Unsqueeze", "Reshape", "Flatten", "Transpose")
_EVEN = 0.5  # a probability that rounds to 0, as half goes to even
_RESHAPES = ("Squeeze", "Unsqueeze", "Reshape", "Flatten")
_COMPARISONS = ("Greater", "GreaterOrEqual", "Less", "LessOrEqual")
# Operators whose result has its channels on axis 1, by ONNX's definition.
_CHANNELS_FIRST = (
    "Conv", "ConvTranspose", "BatchNormalization", "InstanceNormalization", "GroupNormalization",
    "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LRN", "DepthToSpace",
    "SpaceToDepth", "GridSample",
)  # fmt: skip
# And those that leave each axis what it is.
_AXES_KEPT = (
    "Identity", "Cast", "Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "Gelu", "Mish",
    "Softplus",
    "Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Clip", "Softmax", "LogSoftmax", "Exp", "Log",
    "Neg", "Abs", "Sqrt", "Erf", "Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "Mean", "Sum",
    "Resize", "Upsample", "Pad", "Slice", "Concat", "Where", "QuantizeLinear", "DequantizeLinear",
)  # fmt: skip


@dataclass(frozen=True)
class Step:
    """A node between the class scores and the file's output that is left away: Softmax, LogSoftmax
    and Sigmoid, or Mul by `factor`, a number above 0. They change no arg max."""

    op: Literal["Softmax", "LogSoftmax", "Sigmoid", "Mul"]
    factor: float = 1.0

    def undo(self, value: float) -> float:
        """What is compared with a score where `value` is compared with the step's result.

        Raises UserError for a threshold of probabilities that is not inside 0..1.
        """
        if self.op == "Mul":
            return value / self.factor
        assert self.op == "Sigmoid"
        if not 0 < value < 1:
            raise UserError(f"the threshold {value:g} of a sigmoid must lie between 0 and 1")
        return math.log(value / (1 - value))


@dataclass(frozen=True)
class Scores:
    """A tensor of class scores of one image: `axis` holds the classes, None where there is one
    class and no axis for it; the others, but for axes of size 1, are height and width. `steps` lead
    from it to where the walk began, in the graph's order."""

    tensor: str
    axis: int | None
    num: int
    size: tuple[int, int]
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Decision:
    """The node that makes labels or masks of scores, and what it reads."""

    kind: Literal["labels", "masks"]
    scores: str
    axis: int | None = None  # of the classes, where it is an ArgMax
    # Where it compares: the class is there where the score, or what is `negated` its negative, is
    # above the threshold, or `inclusive` not below it.
    threshold: float = 0.0
    inclusive: bool = False
    negated: bool = False


def find_decision(tensors: Tensors, output: str) -> Decision | None:
    """The ArgMax or the comparison that an output comes from, if it does; raises UserError for one
    that means something else than labels or masks of upright images."""
    moves, written, name, flipped = list[onnx.NodeProto](), False, output, False
    while (node := tensors.maker(name)) is not None:
        read = _read_of(tensors, node)
        if read is None:
            break
        name, flips = read
        flipped ^= flips
        written |= node.op_type in ("Where", "Mul")
        moves.append(node)
    if node is None or not _decides(tensors, node):
        return None
    if not all(_keeps_order(tensors, move) for move in moves):
        raise UserError(
            f"behind {describe_node(node)} the ONNX graph exchanges axes of the labels: height and "
            "width would not be the image's; export class scores (1, K, h, w) instead"
        )
    if node.op_type == "Round":
        return Decision("masks", str(node.input[0]), None, _EVEN, flipped, flipped)
    if node.op_type != "ArgMax":
        return _comparison(tensors, node, flipped)
    if written:  # numbers of labels mean something, those of masks only say which of two it is
        return None
    if number(node, "select_last_index", 0) or flipped:
        raise UserError(
            f"in {describe_node(node)} the last of equal scores wins; export class scores "
            "(1, K, h, w) instead"
        )
    scores = str(node.input[0])
    axis = number(node, "axis", 0) % len(tensors.shape(scores))
    return Decision("labels", scores, axis)


def _read_of(tensors: Tensors, node: onnx.NodeProto) -> tuple[str, bool] | None:
    """What a node behind a decision only writes otherwise, a mask in other numbers than 0 and 1,
    and whether it exchanges what is there and what is not; None for any other node."""
    first = str(node.input[0])
    if node.op_type in (*MOVES, "Not"):
        return first, node.op_type == "Not"
    if node.op_type not in ("Where", "Mul") or len(node.input) < 2:
        return None
    numbers = [tensors.uniform(name) for name in node.input]
    data = [str(name) for name, value in zip(node.input, numbers, strict=True) if value is None]
    known = [value for value in numbers if value is not None]
    if len(data) != 1 or tensors.shape(data[0]) != tensors.shape(node.output[0]):
        return None
    if node.op_type == "Mul":
        return (data[0], False) if 0 < known[0] < math.inf else None
    there, not_there = (known[0], known[1]) if data[0] == first else (0.0, 0.0)
    if there == not_there or min(there, not_there) != 0:
        return None
    return first, there == 0


def _decides(tensors: Tensors, node: onnx.NodeProto) -> bool:
    """An ArgMax, a comparison, or a probability rounded to 0 or 1."""
    if node.op_type != "Round":
        return node.op_type in ("ArgMax", *_COMPARISONS)
    source = tensors.maker(node.input[0])
    while source is not None and source.op_type in MOVES:
        source = tensors.maker(source.input[0])
    return source is not None and source.op_type == "Sigmoid"


def _comparison(tensors: Tensors, node: onnx.NodeProto, flipped: bool) -> Decision:
    left, right = node.input
    less, inclusive = node.op_type.startswith("Less"), node.op_type.endswith("OrEqual")
    threshold = tensors.scalar(right)
    if threshold is None:
        left, threshold, less = right, tensors.scalar(left), not less
    if threshold is None or not math.isfinite(threshold):
        raise UserError(
            f"{describe_node(node)} at the end of the ONNX graph compares with something else than "
            "one number; export class scores (1, K, h, w) instead"
        )
    if flipped:  # not above is below, or equal
        less, inclusive = not less, not inclusive
    return Decision("masks", left, None, threshold, inclusive, less)


def made_of_labels(tensors: Tensors, name: str) -> onnx.NodeProto | None:
    """The node that has decided about classes where a tensor is only made of its result, as
    one that is resized or scaled afterwards; else None."""
    while (node := tensors.maker(name)) is not None:
        if node.op_type in ("ArgMax", "ArgMin", "TopK", "Equal", *_COMPARISONS):
            return node
        data = [i for i in node.input if i and not tensors.is_constant(i)]
        if node.op_type not in (*_AXES_KEPT, *MOVES, "Not", "And", "Or") or len(data) != 1:
            return None
        name = data[0]
    return None


def above(threshold: float, *, inclusive: bool) -> float:
    """The threshold above which a float32 score lies where it is above this one, or where
    `inclusive` is not below it."""
    rounded = np.float32(threshold)
    return float(np.nextafter(rounded, np.float32(-np.inf)) if inclusive else rounded)


def scores_behind(
    tensors: Tensors,
    name: str,
    axis: int | None,
    plausible: Callable[[tuple[int, int]], bool],
    *,
    softmax: bool = True,
) -> Scores | None:
    """The class scores furthest back from a tensor whose `axis` holds the classes (None: there is
    one class), by way of nodes that change no arg max; without `softmax`, none between classes.

    None where neither the tensor nor one behind it has its image axes in order, in sizes that are
    `plausible`.
    """
    best, steps = None, list[Step]()
    for name, axis, step in _walk(tensors, name, axis, softmax):  # noqa: B020
        if step is not None:
            steps.insert(0, step)
        size = _image_size(tensors.shape(name), axis)
        if size is not None and plausible(size):
            num = 1 if axis is None else tensors.shape(name)[axis]
            best = Scores(name, axis, num, size, tuple(steps))
    return best


def _walk(
    tensors: Tensors,
    name: str,
    axis: int | None,
    softmax: bool,
) -> Iterator[tuple[str, int | None, Step | None]]:
    """The tensor itself, and those behind it with their class axis and the step left away."""
    yield name, axis, None
    while (node := tensors.maker(name)) is not None:
        source = next((str(i) for i in node.input if not tensors.is_constant(i)), "")
        if not tensors.is_float(source):
            return
        shape, step = tensors.shape(source), None
        match node.op_type:
            case "Identity" | "Cast":
                pass
            case "Softmax" | "LogSoftmax" as op:
                if not softmax or axis is None or number(node, "axis", -1) % len(shape) != axis:
                    return
                step = Step(op)
            case "Sigmoid":
                step = Step("Sigmoid")
            case "Mul" | "Div":
                step = _scaling(tensors, node, source)
                if step is None:
                    return
            case "Transpose" if axis is not None:
                order = permutation(node, len(shape))
                if not _in_order(shape, [a for a in order if a != order[axis]]):
                    return
                axis = order[axis]
            case "Transpose":
                if not _keeps_order(tensors, node):
                    return
            case op if op in _RESHAPES:
                if axis is not None:
                    axis = _same_axis(tensors.shape(name), axis, shape)
                    if axis is None:
                        return
            case _:
                return
        if tensors.maker(source) is None:  # the network's input: something has to be computed
            return
        name = source
        yield name, axis, step


def _scaling(tensors: Tensors, node: onnx.NodeProto, source: str) -> Step | None:
    """The step where a node multiplies its source by a number above 0."""
    first, second = node.input
    factor = tensors.scalar(second if first == source else first)
    divides = node.op_type == "Div"
    # A constant of more axes than the source would add axes to the result.
    same = tensors.shape(source) == tensors.shape(node.output[0])
    if factor is None or not 0 < factor < math.inf or not same or (divides and first != source):
        return None
    return Step("Mul", 1 / factor if divides else factor)


def _image_size(shape: tuple[int, ...], axis: int | None) -> tuple[int, int] | None:
    """Height and width of scores (1, K, h, w), (1, h, w, K), (K, h, w) or (h, w, K), and without a
    class axis of (h, w) with any axes of size 1; None for any other shape."""
    if axis is None:
        sides = [side for side in shape if side > 1]
        return (sides[0], sides[1]) if len(sides) == 2 else None
    rank = len(shape)
    if (rank == 4 and (shape[0] != 1 or axis not in (1, 3))) or rank not in (3, 4):
        return None
    if rank == 3 and axis not in (0, 2):
        return None
    height, width = (side for a, side in enumerate(shape) if a != axis and a >= rank - 3)
    return height, width


def channel_axis(tensors: Tensors, name: str) -> int | None:
    """The axis that holds channels, by the nearest operator behind a tensor for which ONNX says so;
    None where there is none, or something on the way may mix the axes."""
    orders: list[list[int]] = []
    while (node := tensors.maker(name)) is not None:
        if node.op_type in _CHANNELS_FIRST:
            axis = 1
            for order in reversed(orders):
                axis = order.index(axis)
            return axis
        rank = len(tensors.shape(name))
        if node.op_type == "Transpose":
            orders.append(list(permutation(node, rank)))
            name = node.input[0]
        elif node.op_type in _AXES_KEPT:
            data = (i for i in node.input if i and not tensors.is_constant(i))
            name = next((i for i in data if len(tensors.shape(i)) == rank), "")
        else:
            return None
    return None


def _same_axis(shape: tuple[int, ...], axis: int, source: tuple[int, ...]) -> int | None:
    """The axis of a reshape's `source` that is this axis of its result: of the same size, and with
    as many elements before it."""
    before = math.prod(shape[:axis])
    for other, side in enumerate(source):
        if side == shape[axis] and math.prod(source[:other]) == before:
            return other
    return None


def _keeps_order(tensors: Tensors, node: onnx.NodeProto) -> bool:
    """Whether elements stay in their order: a Transpose may move axes of size 1 alone."""
    if node.op_type != "Transpose":
        return True
    shape = tensors.shape(node.input[0])
    return _in_order(shape, permutation(node, len(shape)))


def _in_order(shape: tuple[int, ...], axes: Sequence[int]) -> bool:
    real = [axis for axis in axes if shape[axis] > 1]
    return real == sorted(real)
