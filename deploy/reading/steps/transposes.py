"""Transposes around every operator, as converters of TensorFlow's networks write them, cancel out.

Before: Transpose, some operators that work in any order of axes, and the inverse Transpose.
After: those operators in the other order. A Transpose is put off until somebody needs it; the graph
stays as it was where that leaves no fewer of them.
"""

from collections.abc import Callable
from copy import copy
from typing import TypeAlias

import numpy as np

from deploy.reading.graph import Graph, Node
from deploy.reading.infer import infer

_UNARY = {"Relu", "Clip", "Sigmoid", "Tanh", "LeakyRelu", "Elu", "Selu", "Celu", "HardSigmoid",
          "HardSwish", "Gelu", "Mish", "Erf", "Exp", "Log", "Sqrt", "Neg", "Abs", "Floor", "Ceil",
          "Round", "Sign", "Softplus", "Softsign", "Reciprocal", "Cast", "Not", "ThresholdedRelu",
          "QuantizeLinear", "DequantizeLinear", "Identity"}  # fmt: skip
_BROADCAST = {"Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum", "Mean", "PRelu", "Where",
              "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Xor",
              "Concat"}  # fmt: skip
_ONE_AXIS = {"Softmax", "LogSoftmax", "Hardmax", "Split", "ArgMax", "ArgMin"}
_DEFAULT_AXIS = {"Softmax": -1, "LogSoftmax": -1, "Hardmax": -1}

Perm: TypeAlias = tuple[int, ...]


def cancel_transposes(graph: Graph) -> None:
    """Put every Transpose off as far as it goes, in place."""
    trial = copy(graph)
    trial.constants, trial.types = dict(graph.constants), dict(graph.types)
    trial.outputs = list(graph.outputs)
    trial.nodes = []
    walk = _Walk(trial)
    for node in graph.nodes:
        walk.take(copy(node))
    trial.outputs = [walk.needed(name) for name in trial.outputs]
    if _count(trial) < _count(graph):
        vars(graph).update(vars(trial))


def _count(graph: Graph) -> int:
    return sum(node.op == "Transpose" for node in graph.nodes)


class _Walk:
    """Writes the nodes of a graph anew, in order."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        # A tensor that is put off: the one that it is a transposition of, and how.
        self.later: dict[str, tuple[str, Perm]] = {}
        self.made: dict[str, str] = {}

    def take(self, node: Node) -> None:
        node.inputs, node.outputs = list(node.inputs), list(node.outputs)
        node.attributes = dict(node.attributes)
        if node.op == "Transpose":
            self.put_off(node)
            return
        perm = self.common_perm(node)
        if perm is None or not self.moved(node, perm):
            node.inputs = [self.needed(name) for name in node.inputs]
            self.graph.nodes.append(node)

    def put_off(self, node: Node) -> None:
        source = node.inputs[0]
        perm = tuple(node.get("perm") or range(self.graph.rank(source))[::-1])
        if source in self.later:
            source, before = self.later[source]
            perm = tuple(before[axis] for axis in perm)
        self.later[node.outputs[0]] = (source, perm)

    def common_perm(self, node: Node) -> Perm | None:
        """What all inputs that are no constants are put off by; None where they differ."""
        maps = [n for n in node.inputs if n and n not in self.graph.constants]
        perms = {self.later[n][1] if n in self.later else None for n in maps}
        return perms.pop() if len(perms) == 1 else None

    def needed(self, name: str) -> str:
        """A tensor as it was before, transposed now if it was put off."""
        if name not in self.later:
            return name
        source, perm = self.later[name]
        if perm == tuple(range(len(perm))):
            return source
        if name not in self.made:
            self.graph.nodes.append(Node("Transpose", [source], [name], {"perm": list(perm)}))
            self.made[name] = name
        return name

    def moved(self, node: Node, perm: Perm) -> bool:
        """Write a node in the other order of axes; False where it has none."""
        rewrite = self.rewriter(node)
        if rewrite is None or not rewrite(node, perm):
            return False
        node.inputs = [self.later[n][0] if n in self.later else n for n in node.inputs]
        outputs = node.outputs
        node.outputs = [self.graph.fresh(name) if name else "" for name in outputs]
        left = self.left_axes(node, perm)
        for old, new in zip(outputs, node.outputs, strict=True):
            if old:
                self.later[old] = (new, left)
        infer(self.graph, node)
        self.graph.nodes.append(node)
        return True

    def rewriter(self, node: Node) -> Callable[[Node, Perm], bool] | None:
        if node.op in _UNARY:
            return lambda _node, _perm: True
        if node.op in _BROADCAST:
            return self.broadcast
        if node.op in _ONE_AXIS:
            return self.one_axis
        if node.op.startswith("Reduce"):
            return self.reduce
        others = {"Pad": self.pad, "Slice": self.slice, "Resize": self.resize}
        return others.get(node.op)

    def left_axes(self, node: Node, perm: Perm) -> Perm:
        """How the output is put off: without the axes that are gone."""
        if node.op.startswith("Reduce") and not node.get("keepdims", 1):
            gone = set(self.graph.constants[node.inputs[1]].tolist())
        elif node.op in ("ArgMax", "ArgMin") and not node.get("keepdims", 1):
            gone = {node.get("axis")}
        else:
            return perm
        kept = [axis for axis in perm if axis not in gone]
        return tuple(sorted(kept).index(axis) for axis in kept)

    def broadcast(self, node: Node, perm: Perm) -> bool:
        """Constants are transposed back; (C) of (N, H, W, C) becomes (1, C, 1, 1)."""
        rank = len(perm)
        if any(self.graph.rank(n) != rank for n in node.inputs if n not in self.graph.constants):
            return False
        if any(self.graph.rank(n) > rank for n in node.inputs):
            return False
        if node.op == "Concat":
            node.attributes["axis"] = perm[node.get("axis") % rank]
        for index, name in enumerate(node.inputs):
            if name in self.graph.constants and self.graph.rank(name):
                value = self.graph.constants[name]
                value = value.reshape((1,) * (rank - value.ndim) + value.shape)
                turned = np.ascontiguousarray(value.transpose(np.argsort(perm)))
                node.inputs[index] = self.graph.constant(turned, name)
        return True

    def one_axis(self, node: Node, perm: Perm) -> bool:
        axis = node.get("axis", _DEFAULT_AXIS.get(node.op, 0))
        node.attributes["axis"] = perm[axis % len(perm)]
        return True

    def reduce(self, node: Node, perm: Perm) -> bool:
        axes = [perm[axis] for axis in self.graph.constants[node.inputs[1]].tolist()]
        node.inputs[1] = self.graph.constant(np.array(sorted(axes), np.int64))
        return True

    def pad(self, node: Node, perm: Perm) -> bool:
        pads = self.graph.constants[node.inputs[1]].reshape(2, len(perm))
        node.inputs[1] = self.graph.constant(pads[:, np.argsort(perm)].reshape(-1))
        return True

    def slice(self, node: Node, perm: Perm) -> bool:
        axes = self.graph.constants[node.inputs[3]].tolist()
        node.inputs[3] = self.graph.constant(np.array([perm[axis] for axis in axes], np.int64))
        return True

    def resize(self, node: Node, perm: Perm) -> bool:
        for index in (2, 3):
            if node.input(index):
                values = self.graph.constants[node.inputs[index]]
                node.inputs[index] = self.graph.constant(values[np.argsort(perm)])
        return True
