"""A deployable graph as `deploy.quantise` sees it: who makes and who reads each tensor, and which
nodes are what."""

import math
from collections import defaultdict
from functools import cached_property
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx.numpy_helper import to_array

from deploy.graph.ends.tensors import Tensors, attributes_of

# Each element by itself: what kernels do to a sum before it is written.
ELEMENTWISE = frozenset({
    "Abs", "Add", "Clip", "Div", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish",
    "LeakyRelu", "Max", "Min", "Mish", "Mul", "Neg", "PRelu", "Pow", "Relu", "Selu", "Sigmoid",
    "Softplus", "Sqrt", "Sub", "Swish", "Tanh", "ThresholdedRelu",
})  # fmt: skip
# What gives elements, or means of elements, of what it reads: its range is that of its input.
MOVING = frozenset({
    "AveragePool", "DepthToSpace", "Flatten", "Identity", "MaxPool", "Pad", "Reshape", "Resize",
    "Slice", "SpaceToDepth", "Split", "Squeeze", "Transpose", "Unsqueeze",
})  # fmt: skip


class Wiring:
    """The tensors and nodes of a graph with static shapes; the graph is not changed.

    Nodes are in topological order, as ONNX demands; a node's place in it is its number.
    """

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.nodes = list(graph.node)
        self.outputs = {value.name for value in graph.output}
        self._tensors = Tensors(graph)
        self._constants = {tensor.name: tensor for tensor in graph.initializer}

    @cached_property
    def _readers(self) -> dict[str, list[int]]:
        readers: dict[str, list[int]] = defaultdict(list)
        for number, node in enumerate(self.nodes):
            for name in dict.fromkeys(node.input):
                if name:
                    readers[name].append(number)
        return readers

    @cached_property
    def _makers(self) -> dict[str, int]:
        return {name: n for n, node in enumerate(self.nodes) for name in node.output if name}

    def readers(self, name: str) -> list[int]:
        """The nodes that read a tensor, each once, in order."""
        return self._readers.get(name, [])

    def maker(self, name: str) -> int | None:
        """The node that gives a tensor; None for an input and for a constant."""
        return self._makers.get(name)

    def constant(self, name: str) -> NDArray[Any] | None:
        """The value of an initializer; None for what is none."""
        tensor = self._constants.get(name)
        if tensor is None:
            return None
        array: NDArray[Any] = to_array(tensor)
        return array

    def is_constant(self, name: str) -> bool:
        """Whether it is an initializer."""
        return name in self._constants

    def shape(self, name: str) -> tuple[int, ...]:
        """Sizes; raises UserError where they are not known."""
        return self._tensors.shape(name)

    def is_map(self, name: str) -> bool:
        """Whether it holds more than one float32 number a channel: (1, C, H, W), tokens (1, N, C),
        or maps in groups (1, G, C / G, H, W). What has one, such as a gate or a global mean, is
        small: it stays as it is."""
        if not self._tensors.is_float(name):
            return False
        shape = self.shape(name)
        if len(shape) < 3:
            return False
        return (shape[1] if len(shape) == 3 else math.prod(shape[-2:])) > 1

    def made_maps(self, node: onnx.NodeProto) -> list[str]:
        """The maps that a node gives."""
        return [name for name in node.output if name and self.is_map(name)]

    def read_maps(self, node: onnx.NodeProto) -> list[str]:
        """The maps that a node reads, each once; no constants, no vectors."""
        names = dict.fromkeys(name for name in node.input if name)
        return [name for name in names if not self.is_constant(name) and self.is_map(name)]

    def weight_axis(self, node: onnx.NodeProto) -> int | None:
        """The axis of the output channels in the weights of a node that 8-bit kernels are for: a
        convolution, or a product, of a map with constant weights. None for any other node."""
        if node.op_type not in ("Conv", "ConvTranspose", "MatMul") or len(node.input) < 2:
            return None
        if not self.is_constant(node.input[1]) or not self.is_map(node.input[0]):
            return None
        if node.op_type == "Conv":
            return 0
        if node.op_type == "MatMul":
            return 1 if len(self.shape(node.input[1])) == 2 else None
        # Weights (I, O / groups, kh, kw): of several groups no axis is the outputs'.
        return 1 if attributes_of(node).get("group", 1) == 1 else None

    def bounds(self, node: onnx.NodeProto) -> tuple[float, float] | None:
        """Between which the elements lie that a Relu or a Clip from 0 on gives; None for others."""
        if node.op_type == "Relu":
            return 0.0, float("inf")
        if node.op_type != "Clip":
            return None
        limits = [float("-inf"), float("inf")]
        for place, name in enumerate(node.input[1:3]):
            if name:
                value = self.constant(name)
                if value is None or value.size != 1:
                    return None
                limits[place] = float(value.item())
        return (0.0, limits[1]) if limits[0] == 0.0 and limits[1] > 0 else None
