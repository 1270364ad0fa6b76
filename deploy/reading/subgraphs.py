"""Graphs inside nodes: what they read from outside, and their nodes under names of their own."""

from typing import Any

import onnx
from numpy.typing import NDArray

from deploy.reading.graph import Graph, Node
from deploy.reading.tensors import to_array


def read_outside(graph: onnx.GraphProto) -> list[str]:
    """The tensors that a subgraph reads and does not make, in order."""
    own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    found: dict[str, None] = {}
    for node in graph.node:
        inner = [name for sub in _subgraphs(node) for name in read_outside(sub)]
        found.update(dict.fromkeys(n for n in (*node.input, *inner) if n and n not in own))
        own.update(node.output)
    found.update(dict.fromkeys(v.name for v in graph.output if v.name not in own))
    return list(found)


def read_by(node: Node) -> list[str]:
    """Every tensor that a node reads, its subgraphs too."""
    names = [name for name in node.inputs if name]
    for value in node.attributes.values():
        for graph in value if isinstance(value, list) else [value]:
            if isinstance(graph, onnx.GraphProto):
                names += read_outside(graph)
    return names


def inline(
    graph: Graph, branch: onnx.GraphProto
) -> tuple[list[onnx.NodeProto], dict[str, NDArray[Any]], list[str]]:
    """A branch's nodes, its constants and its outputs, under names that the graph does not have."""
    own = [tensor.name for tensor in branch.initializer]
    own += [name for node in branch.node for name in node.output if name]
    names = {name: graph.fresh(name) for name in own}
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in branch.node]
    for node in nodes:
        _rename(node, names)
    constants = {names[t.name]: to_array(t, f"the constant '{t.name}'") for t in branch.initializer}
    return nodes, constants, [names.get(value.name, value.name) for value in branch.output]


def _rename(node: onnx.NodeProto, names: dict[str, str]) -> None:
    for index, name in enumerate(node.input):
        node.input[index] = names.get(name, name)
    for index, name in enumerate(node.output):
        node.output[index] = names.get(name, name)
    for sub in _subgraphs(node):
        own = {value.name for value in sub.input} | {tensor.name for tensor in sub.initializer}
        own |= {name for inner in sub.node for name in inner.output}
        outside = {old: new for old, new in names.items() if old not in own}
        for inner in sub.node:
            _rename(inner, outside)
        for value in sub.output:
            value.name = outside.get(value.name, value.name)


def _subgraphs(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    single = [a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
    return single + [g for a in node.attribute for g in a.graphs]
