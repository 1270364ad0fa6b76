"""Unpooling by masks, as `deploy.reading.steps.unpool` writes it."""

from collections.abc import Iterator
from typing import Any

from tvm import relax

from deploy.graph.match.found import Found
from deploy.graph.view import Graph, map_of, shape_of
from lut.ops import Unpool

# Of (C, H, k, W, k) to (k, k, C, H, W), and back.
_TO_DEPTH, _TO_SPACE = [2, 4, 0, 1, 3], [2, 3, 0, 4, 1]


def match_unpool(graph: Graph, var: relax.Var) -> Iterator[Found]:
    """Of each window's numbers the first that is equal to the largest becomes the update, the
    others zero.

    The masks between are left to whoever else reads them.
    """
    parts, k = _depth_to_space(graph, var)
    if not parts or k < 2 or len(parts) != k * k or str(var.ty.dtype) != "float32":
        return
    seen = deep = updates = largest = None  # seen: a value found its window's largest before
    for number, part in enumerate(parts):
        chosen = graph.call(part, "relax.where")
        zero = None if chosen is None else graph.constant(chosen.args[2])
        if zero is None or zero.any() or not _same(updates, chosen.args[1]):
            return
        updates, equal = chosen.args[1], chosen.args[0]
        if seen is not None:
            both = graph.call(equal, "relax.logical_and")
            other = None if both is None else graph.call(both.args[1], "relax.logical_not")
            if other is None or not _is_any(graph, other.args[0], seen):
                return
            equal = both.args[0]
        compared = graph.call(equal, "relax.equal")
        phase = None if compared is None else _phase(graph, compared.args[0], number)
        if phase is None or not _same(deep, phase) or not _same(largest, compared.args[1]):
            return
        deep, largest, seen = phase, compared.args[1], [*(seen or []), equal]
    source, size = _space_to_depth(graph, deep)
    small = (1, map_of(var)[0], *(side // k for side in map_of(var)[1:]))
    if size != k or shape_of(source) != shape_of(var) or shape_of(largest) != small:
        return
    if shape_of(updates) == small:
        yield Found(Unpool(*map_of(var), k), [source, largest, updates], var, (), {})


def _same(known: Any, found: Any) -> bool:  # noqa: ANN401 - a Var or None
    return isinstance(found, relax.Var) and (known is None or bool(known.same_as(found)))


def _is_any(graph: Graph, value: relax.Expr, of: list[relax.Var]) -> bool:
    """Whether a mask is true where one of these is."""
    *first, last = of
    if not first:
        return bool(last.same_as(value))
    either = graph.call(value, "relax.logical_or")
    return (
        either is not None
        and last.same_as(either.args[1])
        and _is_any(graph, either.args[0], first)
    )


def _phase(graph: Graph, value: relax.Expr, number: int) -> relax.Var | None:
    """What these channels are cut out of: as many as there are, from `number` times that on."""
    cut = graph.call(value, "relax.strided_slice")
    if cut is None or len(shape_of(value)) != 4:
        return None
    axes, first, last = ([int(v.value) for v in numbers.fields] for numbers in cut.args[1:4])
    channels = map_of(value)[0]
    fits = (axes, first, last) == ([1], [number * channels], [(number + 1) * channels])
    return cut.args[0] if fits else None


def _moved(
    graph: Graph, value: relax.Expr, order: list[int]
) -> tuple[relax.Expr, list[int]] | None:
    """The map that is reshaped, transposed to this order and reshaped to a map, and the shape that
    is transposed; both without the axis of one image, which `ChannelsFirst` leaves out."""
    last = graph.call(value, "relax.reshape")
    turned = None if last is None else graph.call(last.args[0], "relax.permute_dims")
    if turned is None:
        return None
    first = graph.call(turned.args[0], "relax.reshape")
    if first is None:
        return None
    shape, axes = list(shape_of(turned.args[0])), [int(axis) for axis in turned.attrs.axes or ()]
    if len(shape) == len(order) + 1 and shape[0] == 1 and axes[:1] == [0]:
        shape, axes = shape[1:], [axis - 1 for axis in axes[1:]]
    return (first.args[0], shape) if axes == order else None


def _depth_to_space(graph: Graph, value: relax.Var) -> tuple[list[relax.Expr], int]:
    """The maps that are concatenated and become the places of k x k windows, and k."""
    moved = _moved(graph, value, _TO_SPACE)
    if moved is None:
        return [], 0
    k, other, *_ = moved[1]
    concat = graph.call(moved[0], "relax.concat")
    if concat is None or int(concat.attrs.axis) not in (1, -3):
        return [], 0
    return (list(concat.args[0].fields), k) if k == other else ([], 0)


def _space_to_depth(graph: Graph, value: relax.Expr) -> tuple[relax.Expr, int]:
    """The map whose k x k windows become channels, and k."""
    moved = _moved(graph, value, _TO_DEPTH)
    if moved is None:
        return value, 0
    source, (_, _, k, _, other) = moved
    return source, k if k == other else 0
