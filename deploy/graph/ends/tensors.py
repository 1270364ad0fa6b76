"""Looking at the tensors of an ONNX graph: who makes them, their sizes, constants; their names."""

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx.numpy_helper import to_array

from deploy.reading.text import plain
from lut.errors import UserError


class Tensors:
    """The tensors of a graph with static shapes (`deploy.reading`)."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._makers = {name: node for node in graph.node for name in node.output}
        self._infos = {v.name: v for v in (*graph.input, *graph.value_info, *graph.output)}

    @cached_property
    def _constants(self) -> Mapping[str, onnx.TensorProto]:
        return {tensor.name: tensor for tensor in self._graph.initializer}

    def maker(self, name: str) -> onnx.NodeProto | None:
        """The node that gives a tensor; None for an input and for a constant."""
        return self._makers.get(name)

    def readers(self, name: str) -> list[onnx.NodeProto]:
        """The nodes that read a tensor."""
        return [node for node in self._graph.node if name in node.input]

    def is_constant(self, name: str) -> bool:
        """Whether it is an initializer."""
        return name in self._constants

    def scalar(self, name: str) -> float | None:
        """The value of a constant of one element."""
        tensor = self._constants.get(name)
        if tensor is None or int(np.prod(tensor.dims)) != 1:
            return None
        array: NDArray[np.generic] = to_array(tensor)
        return float(array.item())

    def uniform(self, name: str) -> float | None:
        """The one value that all elements of a constant have."""
        tensor = self._constants.get(name)
        values: NDArray[np.generic] = np.array([]) if tensor is None else to_array(tensor).ravel()
        return float(values[0]) if values.size and bool((values == values[0]).all()) else None

    def shape(self, name: str) -> tuple[int, ...]:
        """Sizes; raises UserError where they are not known."""
        if name in self._constants:
            return tuple(self._constants[name].dims)
        if name not in self._infos:
            raise UserError(
                f"the sizes of {quoted(name)} in the ONNX graph are not known; simplify the file"
            )
        shape = type_and_shape(self._infos[name])[1]
        if min(shape, default=1) < 1:
            raise UserError(f"the ONNX tensor {self.describe(name)} has sizes that are not fixed")
        return shape

    def is_float(self, name: str) -> bool:
        """Whether it holds float32 numbers."""
        return name in self._infos and type_and_shape(self._infos[name])[0] == TensorProto.FLOAT

    def describe(self, name: str) -> str:
        """Its name, type and sizes."""
        return f"{quoted(name)}, {describe(self._infos[name])}"


def inputs_of(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """A graph's inputs, without weights that are listed among them."""
    constants = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in constants]


def type_and_shape(value: onnx.ValueInfoProto) -> tuple[int, tuple[int, ...]]:
    """An element type of ONNX, and sizes, of which a symbolic or missing one reads as 0."""
    tensor = value.type.tensor_type
    return tensor.elem_type, tuple(
        dim.dim_value if dim.HasField("dim_value") else 0 for dim in tensor.shape.dim
    )


def describe(value: onnx.ValueInfoProto) -> str:
    """Type and sizes, such as ``float (1, 3, 64, ?)``."""
    tensor = value.type.tensor_type
    element = TensorProto.DataType.Name(tensor.elem_type).lower()
    sizes = (str(d.dim_value) if d.HasField("dim_value") else "?" for d in tensor.shape.dim)
    return f"{element} ({', '.join(sizes)})"


def quoted(name: str) -> str:
    """A name of a user's file for a message: what cannot be printed escaped, and not too long."""
    return f"'{plain(name)}'"


def describe_node(node: onnx.NodeProto) -> str:
    """A node for a message: its operator and its name."""
    return f"{node.op_type} (node {quoted(node.name or '?')})"


def attributes_of(node: onnx.NodeProto) -> Mapping[str, object]:
    """The values of a node's attributes by name."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def number(node: onnx.NodeProto, name: str, default: int) -> int:
    """An attribute that is a whole number."""
    value = attributes_of(node).get(name, default)
    assert isinstance(value, int)
    return value


def permutation(node: onnx.NodeProto, rank: int) -> Sequence[int]:
    """Of a Transpose."""
    value = attributes_of(node).get("perm")
    return list(value) if isinstance(value, list | tuple) else list(range(rank))[::-1]
