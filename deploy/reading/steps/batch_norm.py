"""Batch norm in inference is a scale and a shift of each channel.

Before: a convolution, maybe through a concatenation, and a BatchNormalization of constants.
After: the convolution's weights have both inside; where there is none, Mul and Add of (C, 1, 1).
"""

from collections import Counter
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from deploy.reading.graph import Graph, Node
from deploy.reading.writer import Writer

_Channels: TypeAlias = NDArray[np.float64]  # (C,)


def fold_batch_norms(graph: Graph) -> None:
    """Write every batch norm out, in place; the sums are made in float64 and rounded once."""
    makers, uses = graph.makers(), graph.uses()
    renamed: dict[str, str] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.op != "BatchNormalization":
            nodes.append(node)
            continue
        scale, shift = _scale_and_shift(graph, node)
        source, output = renamed.get(node.inputs[0], node.inputs[0]), node.outputs[0]
        plan = _plan(graph, makers, uses, source, scale, shift)
        if plan is not None:
            for made, factor, term in plan:
                _fold(graph, made, factor, term)
            renamed[output] = source
            uses[source] = uses[output]
            makers[output] = makers[source]
        else:
            writer = Writer(graph, node)
            one_each = (-1, *(1 for _ in graph.shape(source)[2:]))
            names = [
                writer.constant(v.astype(np.float32).reshape(one_each)) for v in (scale, shift)
            ]
            writer.end("Add", writer("Mul", source, names[0]), names[1])
            nodes += writer.nodes
    graph.nodes = nodes
    graph.replace(renamed)


def _scale_and_shift(graph: Graph, node: Node) -> tuple[_Channels, _Channels]:
    gamma, beta, mean, variance = (
        graph.constants[name].astype(np.float64) for name in node.inputs[1:5]
    )
    # The sum as float32 has it, as every runtime adds it.
    total = variance.astype(np.float32) + np.float32(node.get("epsilon"))
    scale = gamma / np.sqrt(total.astype(np.float64))
    return scale, beta - mean * scale


def _plan(
    graph: Graph, makers: dict[str, Node], uses: Counter[str], name: str, scale: _Channels,
    shift: _Channels,
) -> list[tuple[Node, _Channels, _Channels]] | None:  # fmt: skip
    """The convolutions that a map comes from, with the part of scale and shift of each; None where
    that is not exact: somebody else reads it, or what makes it has no weights of its own."""
    node = makers.get(name)
    if node is None or uses[name] != 1:
        return None
    if node.op in ("Conv", "ConvTranspose"):
        constant = all(n in graph.constants for n in node.inputs[1:] if n)
        return [(node, scale, shift)] if constant else None
    if node.op != "Concat" or node.get("axis") % graph.rank(name) != 1:
        return None
    plan, start = [], 0
    for branch in node.inputs:
        end = start + graph.shape(branch)[1]
        part = _plan(graph, makers, uses, branch, scale[start:end], shift[start:end])
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
