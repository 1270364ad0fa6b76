"""Attention between the pixels of maps."""

from collections.abc import Iterator
from typing import Any

from tvm import relax

from deploy.graph.match.found import Found
from deploy.graph.match.steps import steps_to
from deploy.graph.view import Graph, map_of, shape_of
from lut.ops import Attention

_Vars = tuple[relax.Var, ...]


def match_attention(graph: Graph, var: relax.Var) -> Iterator[Found]:
    """``softmax([scale *] q k) v -> steps`` as `ChannelsFirst` writes it.

    The maps are split into heads, (1, heads, channels, pixels), multiplied as matrices, and the
    result is put together again; nothing between is read elsewhere.
    """
    for steps in steps_to(graph, var):
        found = _heads(graph, steps.source)
        if found is None:
            continue
        (q, k, v), heads, scale, inner = found
        q_map, k_map, v_map = map_of(q), map_of(k), map_of(v)
        operation = Attention(
            heads, q_map[0] // heads, v_map[0] // heads, *q_map[1:], *k_map[1:], steps.then
        )
        yield Found(
            operation, [q, k, v, *steps.operands], var, (*steps.inner, *inner),
            {"scale": scale, "steps": list(steps.vectors)},
        )  # fmt: skip


def _heads(graph: Graph, var: relax.Var) -> tuple[_Vars, int, float, _Vars] | None:
    """q, k and v, how many heads, the scale, and the values between."""
    joined = graph.call(var, "relax.reshape")
    turned = None if joined is None else _turned(graph, joined.args[0])
    product = None if turned is None else graph.call(turned, "relax.matmul")
    if joined is None or product is None:
        return None
    softmax = graph.call(product.args[0], "relax.nn.softmax")
    if softmax is None or int(softmax.attrs.axis) not in (-1, 3):
        return None
    inner = [joined.args[0], turned, product.args[0], softmax.args[0]]
    scores, scale = softmax.args[0], 1.0
    scaled = graph.call(scores, "relax.multiply")
    if scaled is not None:
        for value, other in (tuple(scaled.args), tuple(scaled.args)[::-1]):
            number = graph.constant(other)
            if number is not None and number.size == 1:
                scores, scale = value, float(number.item())
                inner.append(scores)
                break
    matrix = graph.call(scores, "relax.matmul")
    if matrix is None:
        return None
    parts: list[Any] = []
    for value, is_turned in (
        (matrix.args[0], True),
        (matrix.args[1], False),
        (product.args[1], True),
    ):
        inner.append(value)
        split = _turned(graph, value) if is_turned else value
        if split is None:
            return None
        if is_turned:
            inner.append(split)
        call = graph.call(split, "relax.reshape")
        if call is None or not _is_map(call.args[0]) or len(shape_of(split)) != 4:
            return None
        parts.append((call.args[0], shape_of(split)))
    heads = parts[0][1][1]
    for part, shape in parts:
        channels, height, width = map_of(part)
        if shape != (1, heads, channels // heads, height * width) or channels % heads:
            return None
    if parts[1][0] is not parts[2][0] and map_of(parts[1][0])[1:] != map_of(parts[2][0])[1:]:
        return None
    q, k, v = (part for part, _ in parts)
    if shape_of(var) != (1, map_of(v)[0], *map_of(q)[1:]):
        return None
    if not all(graph.used_once(value) for value in inner):
        return None
    return (q, k, v), heads, scale, tuple(inner)


def _turned(graph: Graph, var: relax.Expr) -> Any:  # noqa: ANN401 - an Expr or None
    """What has its last two axes exchanged."""
    call = graph.call(var, "relax.permute_dims")
    if call is None or call.attrs.axes is None:
        return None
    return call.args[0] if [int(a) for a in call.attrs.axes] == [0, 1, 3, 2] else None


def _is_map(value: relax.Expr) -> bool:
    if not isinstance(value, relax.Var) or str(value.ty.dtype) != "float32":
        return False
    shape = shape_of(value)
    return len(shape) == 4 and shape[0] == 1
