"""What is known of the numbers of a tensor, by the nodes that make it."""

from typing import Literal

import onnx

from deploy.graph.ends.tensors import Tensors, attributes_of
from deploy.graph.ends.walk import MOVES

# Any; a sigmoid's, each for itself; a softmax's; none below 0.
Values = Literal["any", "sigmoid", "softmax", "unsigned"]

# Operators whose results lie between the smallest and the largest number of their first input.
_BETWEEN = (*MOVES, "Slice", "Gather", "MaxPool", "AveragePool", "GlobalAveragePool")
_MADE: dict[str, Values] = {
    "Sigmoid": "sigmoid",
    "HardSigmoid": "sigmoid",
    "Softmax": "softmax",
    "Relu": "unsigned",
    "Exp": "unsigned",
    "Abs": "unsigned",
    "Sqrt": "unsigned",
    "Softplus": "unsigned",
}


def values_of(tensors: Tensors, name: str) -> Values:
    """Which numbers a tensor holds, as far as its nodes say."""
    scaled = False
    while (node := tensors.maker(name)) is not None:
        if node.op_type in _BETWEEN or _interpolates(node):
            name = node.input[0]
        elif node.op_type in _MADE:
            return "unsigned" if scaled else _MADE[node.op_type]
        elif node.op_type == "Clip":
            least = tensors.uniform(node.input[1]) if len(node.input) > 1 else None
            return "any" if least is None or least < 0 else "unsigned"
        elif node.op_type in ("Mul", "Div", "Sub") and (source := _source(tensors, node)):
            if node.op_type != "Sub":
                name, scaled = source, True
            else:  # 1 - p
                found = values_of(tensors, source)
                return found if found in ("sigmoid", "softmax") and not scaled else "any"
        else:
            return "any"
    return "any"


def _interpolates(node: onnx.NodeProto) -> bool:
    return node.op_type == "Resize" and attributes_of(node).get("mode", b"nearest") != b"cubic"


def _source(tensors: Tensors, node: onnx.NodeProto) -> str | None:
    """What is multiplied or divided by a number above 0, or subtracted from 1."""
    first, second = (tensors.uniform(name) for name in node.input)
    if node.op_type == "Sub":
        return str(node.input[1]) if first == 1 else None
    if second is not None and second > 0:
        return str(node.input[0])
    return str(node.input[1]) if node.op_type == "Mul" and first is not None and first > 0 else None
