"""A graph whose weights are off by some roundings of float32: another evaluation of the same."""

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import numpy_helper

from deploy.noise import UNIT

# Which inputs of an operator are weights or biases where they are constant. Other constants say
# what is computed and not with which numbers: sizes and scales of Resize, axes, bounds, grids.
_EITHER = dict.fromkeys(("Add", "Div", "MatMul", "Mul", "Sub"), (0, 1))
_WEIGHTS: dict[str, tuple[int, ...]] = _EITHER | {
    "BatchNormalization": (1, 2, 3, 4),
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "DequantizeLinear": (1,),  # of weights in 8 bits (`_places`)
    "Gemm": (0, 1, 2),
    "GroupNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "PRelu": (1,),
    "RMSNormalization": (1,),
}
_SIZES = {"Shape", "Size"}  # of a map: no numbers of it


def jittered(graph: onnx.ModelProto, seed: int, roundings: float) -> onnx.ModelProto:
    """A copy in which every weight and bias (`weights_of`) is off by up to so many roundings of
    float32, of its size; of weights in 8 bits the scales are."""
    copy, rng, weights = onnx.ModelProto(), np.random.default_rng(seed), weights_of(graph)
    copy.CopyFrom(graph)
    most = float(np.finfo(np.float32).max)  # which masks of attention are full of
    for tensor in copy.graph.initializer:
        if tensor.name in weights:
            values = numpy_helper.to_array(tensor).astype(np.float64)
            off = values * (1 + roundings * UNIT * rng.uniform(-1, 1, values.shape))
            off = np.where(np.isfinite(values), np.clip(off, -most, most), values)
            tensor.CopyFrom(numpy_helper.from_array(off.astype(np.float32), tensor.name))
    return copy


def weights_of(graph: onnx.ModelProto) -> set[str]:
    """The float constants that numbers of the image are multiplied by or added to, and that nothing
    reads as something else."""
    floats = {
        tensor.name
        for tensor in graph.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT
    }
    constants = {tensor.name for tensor in graph.graph.initializer}
    numbers = {value.name for value in graph.graph.input} - constants  # made of the image's
    weights, others = set[str](), set[str]()
    for node in graph.graph.node:
        places = set(_places(node, numbers, constants))
        for place, name in enumerate(node.input):
            (weights if place in places else others).add(name)
        if node.op_type not in _SIZES and not numbers.isdisjoint(node.input):
            numbers.update(node.output)
    return (weights - others) & floats


def _places(node: onnx.NodeProto, numbers: set[str], constants: set[str]) -> Iterator[int]:
    """Which of a node's inputs may be weights."""
    if node.op_type == "DequantizeLinear":
        weighs = node.input[0] in constants
    else:
        weighs = not numbers.isdisjoint(node.input)
    if weighs:
        yield from _WEIGHTS.get(node.op_type, ())
