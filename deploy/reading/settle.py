"""One walk over the graph that settles every node: a constant, or an operator of the normal form.

A node's inputs are settled before it, so their types are known, and their values where they are
constants. Shapes are static: what is computed from them is a constant and gone after the walk, and
so are branches with a constant condition.
"""

from collections import deque
from math import prod
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from deploy.reading.evaluate import Evaluator
from deploy.reading.float32 import widen
from deploy.reading.graph import OPSET, Graph, Node, node_of
from deploy.reading.infer import output_types
from deploy.reading.opsets import RULES
from deploy.reading.sequences import SEQUENCE_OPS, Sequences
from deploy.reading.subgraphs import inline, read_by
from deploy.reading.tensors import to_array
from deploy.reading.text import plain, size_text
from deploy.reading.writer import Writer
from lut.errors import UserError

MOST_NODES = 100_000
_SPARE_BYTES = 192 << 20  # that constants may take beside four times those of the file
_MOST_ROUNDS = 4096  # of a loop of constants
_RANDOM = ("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform",
           "RandomUniformLike")  # fmt: skip


def fold_constants(graph: Graph) -> None:
    """Settle a graph of the normal form once more: what became a constant is folded."""
    constants = graph.constants
    if any(all(n in constants for n in node.inputs if n) for node in graph.nodes):
        settle(graph, OPSET)


def settle(graph: Graph, opset: int) -> None:
    """Bring a graph of the file's opset to the normal form's, in place.

    Raises UserError that names the node that has no meaning there, is wrong, depends on the image
    in its size, or takes too much memory.
    """
    _Walk(graph, opset).run()


class _Walk:
    def __init__(self, graph: Graph, opset: int) -> None:
        self.graph, self.opset = graph, opset
        self.evaluate = Evaluator(opset)
        self.sequences = Sequences(graph)
        self.budget = _SPARE_BYTES + 4 * sum(a.nbytes for a in graph.constants.values())
        self.todo = deque(graph.nodes)
        self.done: list[Node] = []
        self.renamed: dict[str, str] = {}
        self.seen = 0

    def run(self) -> None:
        while self.todo:
            node = self.todo.popleft()
            self.seen += 1
            if self.seen > MOST_NODES:
                raise node.error(f"the graph has more than {MOST_NODES} nodes with its branches")
            node.inputs = [self.renamed.get(name, name) for name in node.inputs]
            self.settle(node)
        self.graph.nodes = self.done
        self.graph.outputs = [self.renamed.get(name, name) for name in self.graph.outputs]
        for name in self.graph.outputs:
            if name not in self.graph.types:
                raise UserError(f"nothing makes the output '{plain(name)}'")

    def settle(self, node: Node) -> None:
        self.check_inputs(node)
        if node.op in SEQUENCE_OPS and not node.domain:
            written = self.sequences(node)
            self.renamed.update(written.renamed)
            self.done.extend(written.nodes)
        elif node.op == "Constant" and not node.domain:
            self.make_constants(node, [constant_value(node)])
        elif node.op in ("Shape", "Size") and not node.domain:
            self.make_constants(node, [self.of_shape(node)])
        elif node.op == "If" and node.inputs[0] in self.graph.constants:
            self.take_branch(node)
        elif (values := self.constant_inputs(node)) is not None:
            self.make_constants(node, self.value(node, values))
        else:
            self.done.extend(self.written(node))

    def check_inputs(self, node: Node) -> None:
        for name in node.inputs:
            known = name in self.graph.types or name in self.sequences.items
            if name and not known:
                raise node.error(f"nothing makes its input '{plain(name)}' before it")

    def constant_inputs(self, node: Node) -> dict[str, NDArray[Any]] | None:
        """The values that a node reads; None where one is no constant or chance decides."""
        if node.op in _RANDOM or node.domain:
            return None
        constants, names = self.graph.constants, read_by(node)
        return {n: constants[n] for n in names} if all(n in constants for n in names) else None

    def value(self, node: Node, values: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """The outputs of a node of constants; its size is looked at first."""
        if node.op == "Loop" and node.input(0) and values[node.inputs[0]].max() > _MOST_ROUNDS:
            raise node.error(f"it goes round more than {_MOST_ROUNDS} times; export the network "
                             "without it")  # fmt: skip
        if not any(isinstance(v, onnx.GraphProto) for v in node.attributes.values()):
            kinds = output_types(self.graph, node, self.opset)
            self.spend(node, sum(kind.bytes for kind in kinds if kind))
        found = self.evaluate(node, values)
        if not all(isinstance(array, np.ndarray) for array in found):
            raise node.error("it makes no tensor; export the network without sequences and maps")
        return found

    def spend(self, node: Node, number_of_bytes: int) -> None:
        self.budget -= number_of_bytes
        if self.budget < 0:
            raise node.error(
                f"computing its constant takes {size_text(number_of_bytes)} of memory, more than a "
                "network of this file's size needs; export the network without it"
            )

    def make_constants(self, node: Node, values: list[NDArray[Any]]) -> None:
        for name, value in zip([n for n in node.outputs if n], values, strict=True):
            self.graph.set_constant(name, value)

    def of_shape(self, node: Node) -> NDArray[np.int64]:
        shape = self.graph.shape(node.inputs[0])
        if node.op == "Size":
            return np.array(prod(shape), np.int64)
        return np.array(shape[node.get("start", 0) : node.get("end")], np.int64)

    def take_branch(self, node: Node) -> None:
        chosen = bool(self.graph.constants[node.inputs[0]].all())
        nodes, constants, outputs = inline(
            self.graph, node.get("then_branch" if chosen else "else_branch")
        )
        for name, value in constants.items():
            self.graph.set_constant(name, value)
        for proto in reversed(nodes):
            self.todo.appendleft(node_of(proto))
        identities = [
            Node("Identity", [inner], [outer], {}, node.name)
            for inner, outer in zip(outputs, node.outputs, strict=True)
            if outer
        ]
        for position, identity in enumerate(identities):
            self.todo.insert(len(nodes) + position, identity)

    def written(self, node: Node) -> list[Node]:
        """The nodes of the normal form that do what this one does."""
        rule = RULES.get((node.domain, node.op))
        if node.domain and rule is None:
            raise node.error(
                "the operators of this domain are not known here; export the network in ONNX's own "
                "operators, without the optimisations of another runtime"
            )
        if any(isinstance(v, onnx.GraphProto) for v in node.attributes.values()):
            raise node.error(
                "what it does depends on the image; export the network without control flow"
            )
        widen(self.graph, node)
        writer = Writer(self.graph, node)
        if rule is not None:
            rule(writer, node, self.opset)
        else:
            writer.keep(node)
        return writer.nodes


def constant_value(node: Node) -> NDArray[Any]:
    """The value of a Constant. Raises UserError for one that is no tensor."""
    (kind, value), *others = node.attributes.items() if node.attributes else [("", None)]
    if kind == "value" and not others:
        return to_array(value, node.title)
    if kind in ("value_float", "value_floats") and not others:
        return np.array(value, np.float32)
    if kind in ("value_int", "value_ints") and not others:
        return np.array(value, np.int64)
    raise node.error(f"its value is of a kind that is not read here ({plain(kind)})")
