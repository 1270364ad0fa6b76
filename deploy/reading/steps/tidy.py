"""What does nothing goes: nodes that nobody reads, and nodes that give what they read."""

import numpy as np

from deploy.reading.graph import Graph, Node
from deploy.reading.subgraphs import read_by

# Operators whose further outputs are left out where nobody reads them; of the others each has its
# place among several of a kind.
_OPTIONAL_OUTPUTS = ("BatchNormalization", "Dropout", "LayerNormalization", "GroupNormalization",
                     "MaxPool", "SkipLayerNormalization")  # fmt: skip


def remove_dead_nodes(graph: Graph) -> None:
    """Drop the nodes that no output of the graph comes from, and optional outputs that nobody
    reads."""
    read = set(graph.outputs)
    kept = []
    for node in reversed(graph.nodes):
        if read.isdisjoint(node.outputs):
            continue
        if node.op in _OPTIONAL_OUTPUTS:
            further = (name if name in read else "" for name in node.outputs[1:])
            node.outputs = [node.outputs[0], *further]
            while not node.outputs[-1]:
                node.outputs.pop()
        read.update(read_by(node))
        kept.append(node)
    graph.nodes = kept[::-1]


def remove_no_ops(graph: Graph) -> None:
    """Read past nodes that give their input as it is, and past a Reshape to another one."""
    makers = graph.makers()
    for node in graph.nodes:
        if _is_reshape(graph, node):
            before = makers.get(node.inputs[0])
            while before is not None and _is_reshape(graph, before):
                node.inputs[0] = before.inputs[0]
                before = makers.get(node.inputs[0])
            shape = graph.constant(np.array(graph.shape(node.outputs[0]), np.int64))
            node.op, node.inputs, node.attributes = "Reshape", [node.inputs[0], shape], {}
    gone = [node for node in graph.nodes if _is_no_op(graph, node)]
    left_out = set(gone)
    graph.nodes = [node for node in graph.nodes if node not in left_out]
    graph.replace({node.outputs[0]: node.inputs[0] for node in gone})


def _is_reshape(graph: Graph, node: Node) -> bool:
    """Whether a node gives the same numbers in the same order."""
    if node.op == "Transpose":
        shape = graph.shape(node.inputs[0])
        perm = node.get("perm") or list(range(len(shape)))[::-1]
        moved = [axis for axis in perm if shape[axis] > 1]
        return moved == sorted(moved)
    return node.op in ("Reshape", "Squeeze", "Unsqueeze", "Flatten")


def _is_no_op(graph: Graph, node: Node) -> bool:
    if not node.inputs or len(node.outputs) != 1 or not node.inputs[0]:
        return False
    if graph.types[node.inputs[0]] != graph.types[node.outputs[0]]:
        return False
    if node.op in ("Identity", "Reshape", "Expand", "Cast"):
        return True
    if node.op in ("Concat", "Sum", "Max", "Min", "Mean", "Split"):
        return len([name for name in node.inputs if name]) == 1 or node.op == "Split"
    if node.op == "Pad":
        return not graph.constants[node.inputs[1]].any()
    if node.op == "Slice":
        return bool((graph.constants[node.inputs[4]] > 0).all())
    if node.op == "Tile":
        return True
    return _is_neutral(graph, node)


def _is_neutral(graph: Graph, node: Node) -> bool:
    """x + 0, x - 0, x * 1, x / 1."""
    neutral = {"Add": 0, "Sub": 0, "Mul": 1, "Div": 1}.get(node.op)
    value = graph.constants.get(node.input(1))
    return neutral is not None and value is not None and bool(np.all(value == neutral))
