"""Half, bfloat16 and double numbers become float32: the one type that networks are computed in."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from deploy.reading.graph import Graph, Node, TensorType

_WIDENED = (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
ATTRIBUTES = ("to", "dtype", "output_dtype")  # that hold an element type
_LARGEST = float(np.finfo(np.float32).max)


def float32_type(kind: TensorType) -> TensorType:
    """A tensor's type in the normal form."""
    return TensorType(TensorProto.FLOAT, kind.shape) if kind.element in _WIDENED else kind


def widen(graph: Graph, node: Node) -> None:
    """Let a node read float32 where it reads constants of another floating type, and make it."""
    for attribute in ATTRIBUTES:
        if node.attributes.get(attribute) in _WIDENED:
            node.attributes[attribute] = TensorProto.FLOAT
    node.inputs = [_wide(graph, name) for name in node.inputs]


def to_float32(array: NDArray[Any]) -> NDArray[np.float32]:
    """The same numbers in float32; doubles beyond its range become its largest."""
    if array.dtype == np.float64:
        finite = np.isfinite(array)
        array = np.where(finite, np.clip(array, -_LARGEST, _LARGEST), array)
    return array.astype(np.float32)


def _wide(graph: Graph, name: str) -> str:
    if name not in graph.constants or graph.types[name].element not in _WIDENED:
        return name
    wide = f"{name}~float32"
    if wide not in graph.constants:
        graph.set_constant(wide, to_float32(graph.constants[name]))
    return wide
