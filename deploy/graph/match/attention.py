"""Attention between the pixels of maps."""

from collections.abc import Iterator
from typing import Any

from tvm import relax

from deploy.graph.match.found import Found
from deploy.graph.match.steps import steps_to
from deploy.graph.orders import Heads, heads_behind, inverse, order_of_result
from deploy.graph.scores import scores_of
from deploy.graph.view import Graph, map_of, shape_of
from lut.ops import Attention, Step

_Parts = tuple[Attention, list[relax.Var], dict[str, Any], tuple[relax.Var, ...]]


def match_attention(graph: Graph, var: relax.Var) -> Iterator[Found]:
    """``softmax([scale *] q k [+ bias]) v -> steps`` of matrices (groups, heads, pixels, channels)
    that maps are split into, as `ChannelsFirst` writes it.

    The result is put together to a map again; nothing between is read elsewhere.
    """
    for steps in steps_to(graph, var):
        found = _heads(graph, steps.source, steps.then)
        if found is None:
            continue
        operation, inputs, weights, inner = found
        yield Found(
            operation, [*inputs, *steps.operands], var, (*steps.inner, *inner),
            {**weights, "steps": list(steps.vectors)},
        )  # fmt: skip


def _heads(graph: Graph, var: relax.Var, then: tuple[Step, ...]) -> _Parts | None:
    result = order_of_result(graph, var)
    product = None if result is None else graph.call(result[0], "relax.matmul")
    if result is None or product is None or len(shape_of(result[0])) != 4:
        return None
    scores = scores_of(graph, product.args[0])
    if scores is None:
        return None
    inner = [*result[2], *scores.inner]
    maps: list[relax.Var] = []
    parts: list[Heads] = []
    for number, value in enumerate((*scores.factors, product.args[1])):
        behind = heads_behind(graph, value, turned=number == 1)
        if behind is None:
            return None
        of, heads, moves = behind
        inner += moves
        maps.append(of)
        parts.append(heads)
    (q, k, v), (of_q, of_k, of_v) = maps, parts
    if not of_q.grid == of_k.grid == of_v.grid or not of_q.heads == of_k.heads == of_v.heads:
        return None
    if map_of(k)[1:] != map_of(v)[1:] or of_q.width != of_k.width:
        return None
    if shape_of(var) != (1, map_of(v)[0], *map_of(q)[1:]):
        return None
    if result[1] != inverse(of_v.order(*map_of(q)[1:]), map_of(var)):
        return None
    if not all(graph.used_once(value) for value in inner):
        return None
    weights: dict[str, Any] = {"scale": scores.scale}
    biases = 0
    if scores.bias is not None:
        bias = scores.bias.of(of_q.grid.count, of_q.heads)
        if bias is None:
            return None
        biases = bias.shape[0] * bias.shape[1]
        weights["bias"] = bias.reshape(biases, *bias.shape[2:])
    operation = Attention(
        of_q.heads, of_q.width, of_v.width, *map_of(q)[1:], *map_of(k)[1:], then,
        of_q.grid.groups, of_q.grid.apart, biases,
    )  # fmt: skip
    return operation, [q, k, v], weights, tuple(inner)
