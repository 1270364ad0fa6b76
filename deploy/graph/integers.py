"""Quantised constants as the integers that they are."""

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper


def store_integers(model: onnx.ModelProto) -> None:
    """Have a graph hold in 8 bits what it holds in float32 and quantises.

    Before: initializer (float32) -> QuantizeLinear -> DequantizeLinear, as torch exports fake
    quantisation of weights. After: initializer (int8) -> DequantizeLinear, as other tools write
    it, of a quarter of the size; the numbers are the same (ONNX: half to even, then saturated).
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in [n for n in graph.node if n.op_type == "QuantizeLinear"]:
        if all(name in constants for name in node.input):
            values = [numpy_helper.to_array(constants[name]) for name in node.input]
            integers = _quantised(*values, axis=_axis(node))
            graph.initializer.append(numpy_helper.from_array(integers, node.output[0]))
            graph.node.remove(node)
    used = {name for node in graph.node for name in node.input}
    for tensor in [t for t in graph.initializer if t.name not in used]:
        graph.initializer.remove(tensor)


def _quantised(
    values: NDArray[np.float32], scale: NDArray[np.float32], zero: NDArray[np.int8], *, axis: int
) -> NDArray[np.int8]:
    if scale.ndim:
        shape = [-1 if each == axis else 1 for each in range(values.ndim)]
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    limits = np.iinfo(zero.dtype)
    rounded = np.rint(values / scale) + zero
    integers: NDArray[np.int8] = np.clip(rounded, limits.min, limits.max).astype(zero.dtype)
    return integers


def _axis(node: onnx.NodeProto) -> int:
    return next((a.i for a in node.attribute if a.name == "axis"), 1)
