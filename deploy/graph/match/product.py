"""Products of maps as matrices."""

from collections.abc import Iterator

from tvm import relax

from deploy.graph.match.found import Found
from deploy.graph.match.steps import steps_to
from deploy.graph.orders import Heads, heads_behind, inverse, order_of_result
from deploy.graph.view import Graph, map_of, shape_of
from lut.ops import Product, Step

_Parts = tuple[Product, list[relax.Var], tuple[relax.Var, ...]]


def match_product(graph: Graph, var: relax.Var) -> Iterator[Found]:
    """``a b -> steps`` of matrices (1, heads, pixels, channels) or (1, heads, channels, pixels)
    that two maps are split into, as `ChannelsFirst` writes it.

    The result is put together to a map again; nothing between is read elsewhere.
    """
    for steps in steps_to(graph, var):
        found = _product(graph, steps.source, steps.then)
        if found is not None:
            operation, inputs, inner = found
            yield Found(
                operation, [*inputs, *steps.operands], var, (*steps.inner, *inner),
                {"steps": list(steps.vectors)},
            )  # fmt: skip


def _product(graph: Graph, var: relax.Var, then: tuple[Step, ...]) -> _Parts | None:
    result = order_of_result(graph, var)
    call = None if result is None else graph.call(result[0], "relax.matmul")
    if result is None or call is None or len(shape_of(result[0])) != 4:
        return None
    sides = [_side(graph, value) for value in call.args]
    if sides[0] is None or sides[1] is None:
        return None
    (a, of_a, a_turned, moves_a), (b, of_b, b_turned, moves_b) = sides[0], sides[1]
    _, heads, rows, columns = shape_of(result[0])
    if (a_turned and b_turned) or not of_a.heads == of_b.heads == heads:
        return None
    operation = Product(
        heads, rows, shape_of(call.args[0])[3], columns, map_of(a)[1:], map_of(b)[1:],
        "left" if a_turned else "right" if b_turned else "none", then,
    )  # fmt: skip
    of_result = Heads(heads, columns, of_a.grid)
    plane = operation.output[1:]
    if shape_of(var) != (1, *operation.output):
        return None
    if result[1] != inverse(of_result.order(*plane), operation.output):
        return None
    inner = (*result[2], *moves_a, *moves_b)
    return (operation, [a, b], inner) if all(map(graph.used_once, inner)) else None


def _side(
    graph: Graph, value: relax.Expr
) -> tuple[relax.Var, Heads, bool, tuple[relax.Var, ...]] | None:
    """The map of a factor, as what it is split up, whether it is turned, and what is between."""
    for turned in (False, True):
        found = heads_behind(graph, value, turned=turned)
        if found is not None and found[1].grid.count == 1:
            of, heads, moves = found
            return of, heads, turned, moves
    return None
