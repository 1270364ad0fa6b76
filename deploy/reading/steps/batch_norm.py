"""Batch norm in inference is a scale and a shift of each channel.

Before: a convolution, maybe through a concatenation, and a BatchNormalization of constants.
After: the convolution's weights have both inside; where there is none, Mul and Add of (C, 1, 1).
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from deploy.reading.graph import Graph, Node
from deploy.reading.writer import Writer

_Channels: TypeAlias = NDArray[np.float64]  # (C,)


def fold_batch_norms(graph: Graph) -> None:
    """Write every batch norm out, in place; the sums are made in float64 and rounded once."""
    for node in [n for n in graph.nodes if n.op == "BatchNormalization"]:
        scale, shift = _scale_and_shift(graph, node)
        source, output = node.inputs[0], node.outputs[0]
        if _push(graph, source, scale, shift):
            graph.nodes.remove(node)
            graph.replace({output: source})
        else:
            writer = Writer(graph, node)
            one_each = (-1, *(1 for _ in graph.shape(source)[2:]))
            factor, term = (
                writer.constant(v.astype(np.float32).reshape(one_each)) for v in (scale, shift)
            )
            writer.end("Add", writer("Mul", source, factor), term)
            at = graph.nodes.index(node)
            graph.nodes[at : at + 1] = writer.nodes


def _scale_and_shift(graph: Graph, node: Node) -> tuple[_Channels, _Channels]:
    gamma, beta, mean, variance = (
        graph.constants[name].astype(np.float64) for name in node.inputs[1:5]
    )
    # The sum as float32 has it, as every runtime adds it.
    total = variance.astype(np.float32) + np.float32(node.get("epsilon"))
    scale = gamma / np.sqrt(total.astype(np.float64))
    return scale, beta - mean * scale


def _push(graph: Graph, name: str, scale: _Channels, shift: _Channels) -> bool:
    """Scale and shift a map where it is made; False, and nothing changed, where that is not exact:
    somebody else reads it, or what makes it has no weights of its own."""
    plan = _plan(graph, name, scale, shift)
    if plan is None:
        return False
    for node, factor, term in plan:
        _fold(graph, node, factor, term)
    return True


def _plan(
    graph: Graph, name: str, scale: _Channels, shift: _Channels
) -> list[tuple[Node, _Channels, _Channels]] | None:
    """The convolutions that a map comes from, with the part of scale and shift of each."""
    node = graph.makers().get(name)
    if node is None or graph.uses()[name] != 1:
        return None
    if node.op in ("Conv", "ConvTranspose"):
        constant = all(n in graph.constants for n in node.inputs[1:] if n)
        return [(node, scale, shift)] if constant else None
    if node.op != "Concat" or node.get("axis") % graph.rank(name) != 1:
        return None
    plan, start = [], 0
    if len(set(node.inputs)) != len(node.inputs):
        return None
    for branch in node.inputs:
        end = start + graph.shape(branch)[1]
        part = _plan(graph, branch, scale[start:end], shift[start:end])
        if part is None:
            return None
        plan += part
        start = end
    return plan


def _fold(graph: Graph, node: Node, scale: _Channels, shift: _Channels) -> None:
    weight = graph.constants[node.inputs[1]].astype(np.float64)
    if node.op == "Conv":  # (M, C / groups, ...)
        factor = scale.reshape(-1, *(1 for _ in weight.shape[1:]))
    else:  # (C, M / groups, ...): the outputs of a group stand together
        groups = node.get("group", 1)
        each = scale.reshape(groups, 1, -1)
        rows = weight.shape[0] // groups
        factor = np.repeat(each, rows, axis=1).reshape(
            *weight.shape[:2], *([1] * (weight.ndim - 2))
        )
    bias = graph.constants[node.inputs[2]].astype(np.float64) if node.input(2) else 0.0
    folded = bias * scale + shift
    node.inputs = [
        node.inputs[0],
        graph.constant((weight * factor).astype(np.float32), node.inputs[1]),
        graph.constant(folded.astype(np.float32), node.outputs[0]),
    ]
