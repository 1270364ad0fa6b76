"""Sequences of tensors, which exporters write for ``split`` or ``chunk``, as tensors."""

from dataclasses import dataclass, field

import numpy as np

from deploy.reading.graph import Graph, Node
from deploy.reading.writer import Writer

SEQUENCE_OPS = ("SequenceConstruct", "SequenceEmpty", "SequenceInsert", "SequenceErase",
                "SequenceAt", "SequenceLength", "SplitToSequence",
                "ConcatFromSequence")  # fmt: skip


@dataclass
class Written:
    """What a node of sequences is: nodes, and other names for what it makes."""

    nodes: list[Node] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)


class Sequences:
    """The tensors of each sequence of a graph."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.items: dict[str, list[str]] = {}

    def __call__(self, node: Node) -> Written:
        """Take a node of `SEQUENCE_OPS` away. Raises UserError where an index or a length depends
        on the image."""
        output = node.outputs[0]
        if node.op in ("SequenceEmpty", "SequenceConstruct"):
            self.items[output] = list(node.inputs)
            return Written()
        if node.op == "SplitToSequence":
            return self._split(node)
        if node.inputs[0] not in self.items:
            raise node.error("its input is no sequence")
        items = list(self.items[node.inputs[0]])
        if node.op == "SequenceLength":
            self._graph.set_constant(output, np.array(len(items), np.int64))
        elif node.op == "SequenceAt":
            return Written(renamed={output: items[self._position(node, 1, items)]})
        elif node.op == "SequenceInsert":
            at = self._position(node, 2, items) if node.input(2) else len(items)
            self.items[output] = [*items[:at], node.inputs[1], *items[at:]]
        elif node.op == "SequenceErase":
            del items[self._position(node, 1, items) if node.input(1) else -1]
            self.items[output] = items
        else:
            return self._concat(node, items)
        return Written()

    def _position(self, node: Node, index: int, items: list[str]) -> int:
        value = self._graph.constants.get(node.input(index))
        if value is None or value.size != 1 or not -len(items) <= int(value) <= len(items):
            raise node.error("its position is no constant within the sequence")
        position = int(value)
        if node.op != "SequenceInsert" and position == len(items):
            raise node.error("its position is no constant within the sequence")
        return position

    def _split(self, node: Node) -> Written:
        graph, source = self._graph, node.inputs[0]
        axis = node.get("axis", 0) % max(graph.rank(source), 1)
        side = graph.shape(source)[axis]
        sizes = [1] * side
        if node.input(1):
            value = graph.constants.get(node.inputs[1])
            if value is None or (value.size == 1 and int(value.reshape(-1)[0]) < 1):
                raise node.error("the sizes that it splits into are no constants above zero")
            step = int(value) if value.ndim == 0 else 0
            sizes = [step] * (side // step) if step else [int(v) for v in value]
            if step and side % step:
                sizes.append(side % step)
        pieces = [graph.fresh(source) for _ in sizes]
        writer = Writer(graph, node)
        split = Node("Split", [source, writer.constant(sizes)], pieces, {"axis": axis}, node.name)
        writer.keep(split)
        if not node.input(1) and not node.get("keepdims", 1):
            pieces = [writer("Squeeze", piece, writer.constant([axis])) for piece in pieces]
        self.items[node.outputs[0]] = pieces
        return Written(writer.nodes)

    def _concat(self, node: Node, items: list[str]) -> Written:
        writer, axis = Writer(self._graph, node), node.get("axis")
        if not items:
            raise node.error("its sequence is empty")
        if node.get("new_axis", 0):
            items = [writer("Unsqueeze", item, writer.constant([axis])) for item in items]
        writer.end("Concat", *items, axis=axis)
        return Written(writer.nodes)
