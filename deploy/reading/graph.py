"""The graph while it is read: ONNX's nodes as plain data, constants as numpy arrays.

ONNX's own classes are a file format. A step that rewrites asks what a tensor is, who makes it and
who reads it; this answers, and goes back to ONNX when all steps are done.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from deploy.reading.text import plain
from lut.errors import UserError

OPSET = 20  # of the normal form
_IR_VERSION = 10


class TensorType(NamedTuple):
    """An element type of `onnx.TensorProto`, and a static shape."""

    element: int
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """What the tensor takes in memory; half a byte counts as one."""
        return prod(self.shape) * element_bytes(self.element)


@dataclass(eq=False)
class Node:
    """One operator. An empty name among the inputs or outputs is one that is left out."""

    op: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any] = field(default_factory=dict)  # as helper.get_attribute_value
    name: str = ""
    domain: str = ""

    def input(self, index: int) -> str:
        """The name of an input, "" where it is left out."""
        return self.inputs[index] if index < len(self.inputs) else ""

    def get(self, attribute: str, default: Any = None) -> Any:  # noqa: ANN401 - as ONNX has it
        """An attribute's value; text as str."""
        value = self.attributes.get(attribute, default)
        return value.decode(errors="replace") if isinstance(value, bytes) else value

    @property
    def title(self) -> str:
        """The node in a message: operator and name, or what it makes where it has no name."""
        operator = plain(f"{self.domain}.{self.op}" if self.domain else self.op)
        if self.name:
            return f"{operator} node '{plain(self.name)}'"
        made = next((name for name in self.outputs if name), "")
        return f"{operator} node that makes '{plain(made)}'"

    def error(self, what: str) -> UserError:
        """The one line about this node: what is wrong, and what to do."""
        return UserError(f"{self.title}: {what}")


@dataclass(eq=False)
class Graph:
    """Nodes in an order that runs, and what is known of their tensors."""

    nodes: list[Node]
    constants: dict[str, NDArray[Any]]
    types: dict[str, TensorType]
    inputs: list[str]
    outputs: list[str]  # tensors; what the file calls them stands beside, in the same order
    output_names: list[str]
    _made: int = 0

    def fresh(self, like: str = "") -> str:
        """A tensor's name that nothing has."""
        base = like.split("~")[0][:100] or "made"
        while True:
            self._made += 1
            name = f"{base}~{self._made}"
            if name not in self.types and name not in self.constants:
                return name

    def constant(self, value: NDArray[Any] | Sequence[int] | float, like: str = "") -> str:
        """A new constant's name. Python's floats are float32, its integers int64."""
        array = np.asarray(value)
        if not isinstance(value, np.ndarray) and array.dtype == np.float64:
            array = array.astype(np.float32)
        name = self.fresh(like)
        self.set_constant(name, array)
        return name

    def set_constant(self, name: str, array: NDArray[Any]) -> None:
        """Make a tensor a constant."""
        self.constants[name] = array
        element = helper.np_dtype_to_tensor_dtype(array.dtype)
        self.types[name] = TensorType(element, array.shape)

    def node(self, op: str, inputs: Sequence[str], like: Node, **attributes: object) -> Node:
        """A new node with one new output, named after the node that it stands for."""
        return Node(op, list(inputs), [self.fresh(like.outputs[0])], attributes, like.name)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor."""
        return self.types[name].shape

    def rank(self, name: str) -> int:
        """The number of a tensor's axes."""
        return len(self.types[name].shape)

    def makers(self) -> dict[str, Node]:
        """The node that makes each tensor."""
        return {name: node for node in self.nodes for name in node.outputs if name}

    def uses(self) -> Counter[str]:
        """How often each tensor is read, as an output of the graph too."""
        read = Counter(name for node in self.nodes for name in node.inputs if name)
        read.update(self.outputs)
        return read

    def readers(self) -> dict[str, list[Node]]:
        """The nodes that read each tensor."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                found.setdefault(name, []).append(node)
        return found

    def replace(self, renamed: dict[str, str]) -> None:
        """Read other tensors instead, wherever these are read."""

        def last(name: str) -> str:
            while name in renamed:
                name = renamed[name]
            return name

        if renamed:
            for node in self.nodes:
                node.inputs = [last(name) for name in node.inputs]
            self.outputs = [last(name) for name in self.outputs]


def element_bytes(element: int) -> int:
    """Bytes of one element of a type of `onnx.TensorProto`."""
    return int(helper.tensor_dtype_to_np_dtype(element).itemsize)


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """The attributes of a node as Python has them."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def node_of(proto: onnx.NodeProto) -> Node:
    """A node of a file as plain data."""
    domain = "" if proto.domain == "ai.onnx" else proto.domain
    return Node(
        proto.op_type, list(proto.input), list(proto.output), attributes_of(proto), proto.name,
        domain,
    )  # fmt: skip


def proto_of(node: Node) -> onnx.NodeProto:
    """A node as ONNX writes it; inputs and outputs left out at the end are gone."""
    inputs, outputs = _trimmed(node.inputs), _trimmed(node.outputs)
    attributes = {k: v for k, v in node.attributes.items() if v is not None and v != []}
    proto: onnx.NodeProto = helper.make_node(
        node.op, inputs, outputs, name=node.name, domain=node.domain or None, **attributes
    )
    return proto


def to_model(graph: Graph) -> onnx.ModelProto:
    """The graph as ONNX, in the normal form's opset, with the type of every tensor.

    Its outputs get the names that they have in the file.
    """
    _name_outputs(graph)
    _name_nodes_apart(graph)
    return model_of(graph, graph.nodes, graph.inputs, graph.output_names)


def model_of(
    graph: Graph, nodes: Sequence[Node], inputs: Sequence[str], outputs: Sequence[str]
) -> onnx.ModelProto:
    """A part of a graph, with the constants that it reads, as ONNX."""
    made = [name for node in nodes for name in node.outputs if name]
    used = {name for node in nodes for name in node.inputs}
    model: onnx.ModelProto = helper.make_model(
        helper.make_graph(
            [proto_of(node) for node in nodes],
            "network",
            [_value_info(graph, name) for name in inputs],
            [_value_info(graph, name) for name in outputs],
            [
                numpy_helper.from_array(array, name)
                for name, array in graph.constants.items()
                if name in used
            ],
            value_info=[_value_info(graph, name) for name in made if name not in outputs],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=_IR_VERSION,
    )
    return model


def _name_nodes_apart(graph: Graph) -> None:
    """Number the nodes that stand for one of the file: onnxruntime wants names of their own."""
    given: Counter[str] = Counter(node.name for node in graph.nodes)
    seen: Counter[str] = Counter()
    for node in graph.nodes:
        name = node.name
        while name and given[node.name] > 1:
            seen[name] += 1
            node.name = f"{name}~{seen[name]}"


def _name_outputs(graph: Graph) -> None:
    """Give the outputs the names of the file; an Identity where a tensor cannot have its name."""
    taken = set(graph.output_names) & {*graph.types, *graph.constants} - set(graph.inputs)
    names = {name: graph.fresh(name) for name in taken}
    makers = graph.makers()
    own: dict[str, str] = {}
    for tensor, name in zip(graph.outputs, graph.output_names, strict=True):
        if tensor in makers and tensor not in own and name not in graph.inputs:
            own[tensor] = name
    names.update(own)

    def renamed(name: str) -> str:
        return names.get(name, name)

    for node in graph.nodes:
        node.inputs = [renamed(name) for name in node.inputs]
        node.outputs = [renamed(name) for name in node.outputs]
    graph.types = {renamed(name): kind for name, kind in graph.types.items()}
    graph.constants = {renamed(name): array for name, array in graph.constants.items()}
    for tensor, name in zip(graph.outputs, graph.output_names, strict=True):
        if renamed(tensor) != name:
            graph.nodes.append(Node("Identity", [renamed(tensor)], [name]))
            graph.types[name] = graph.types[renamed(tensor)]
    graph.outputs = list(graph.output_names)


def _value_info(graph: Graph, name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, *graph.types[name])


def _trimmed(names: Iterable[str]) -> list[str]:
    kept = list(names)
    while kept and not kept[-1]:
        kept.pop()
    return kept
