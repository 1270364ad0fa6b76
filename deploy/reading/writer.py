"""Writing nodes that stand for another one, in the normal form's opset."""

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from deploy.reading.graph import Graph, Node
from deploy.reading.infer import infer


class Writer:
    """Collects the nodes that replace one; what each makes is known as soon as it is written."""

    def __init__(self, graph: Graph, like: Node) -> None:
        self.graph, self.like = graph, like
        self.nodes: list[Node] = []

    def __call__(self, op: str, *inputs: str, **attributes: object) -> str:
        """Write a node of one new output; its name."""
        return self.keep(self.graph.node(op, inputs, self.like, **attributes))

    def end(self, op: str, *inputs: str, **attributes: object) -> None:
        """Write the node that makes the first output of the one replaced."""
        self.keep(Node(op, list(inputs), self.like.outputs[:1], attributes, self.like.name))

    def keep(self, node: Node) -> str:
        """Write a node as it is; the name of its first output."""
        infer(self.graph, node)
        self.nodes.append(node)
        return next(name for name in node.outputs if name)

    def constant(self, value: NDArray[Any] | Sequence[int] | float) -> str:
        """A new constant's name."""
        return self.graph.constant(value, self.like.outputs[0])
