"""Normalisation of each pixel's channels."""

from collections.abc import Iterator

import numpy as np
from tvm import relax

from deploy.graph.match.found import Found
from deploy.graph.match.steps import steps_to
from deploy.graph.view import Graph, map_of, shape_of
from lut.ops import ChannelNorm

_Vars = tuple[relax.Var, ...]


def match_channel_norm(graph: Graph, var: relax.Var) -> Iterator[Found]:
    """``(x - mean) / sqrt(mean of squares + epsilon) -> steps``, over the channels.

    The quotient may be a product with one over the root, the square a product or a power.
    """
    for steps in steps_to(graph, var):
        found = _normal(graph, steps.source)
        if found is None:
            continue
        x, epsilon, inner = found
        yield Found(
            ChannelNorm(*map_of(x), then=steps.then), [x, *steps.operands], var,
            (*steps.inner, *inner), {"epsilon": epsilon, "steps": list(steps.vectors)},
        )  # fmt: skip


def _normal(graph: Graph, var: relax.Var) -> tuple[relax.Var, float, _Vars] | None:
    """What is normalised, epsilon, and the values between."""
    call = graph.call(var, "relax.divide", "relax.multiply")
    if call is None:
        return None
    orders = [tuple(call.args)]
    if call.op.name == "relax.multiply":
        orders.append((call.args[1], call.args[0]))
    no_vars: _Vars = ()
    for centred, other in orders:
        root, inverse = other, no_vars
        if call.op.name == "relax.multiply":
            over = graph.call(other, "relax.divide")
            one = None if over is None else graph.constant(over.args[0])
            if one is None or one.size != 1 or one.item() != 1:
                continue
            root, inverse = over.args[1], (other,)
        found = _deviation(graph, root, centred)
        if found is None:
            continue
        x, epsilon, between = found
        # The centred map is read by its square, once or twice, and here; the others once.
        inner = (*inverse, *between)
        if all(graph.used_once(value) for value in inner):
            square = graph.definition(between[-1])
            reads = 1 + sum(bool(arg.same_as(centred)) for arg in square.args)
            if graph.uses(centred) == reads:
                mean = graph.definition(centred).args[1]
                if graph.used_once(mean):
                    return x, epsilon, (*inner, centred, mean)
    return None


def _deviation(
    graph: Graph, root: relax.Expr, centred: relax.Expr
) -> tuple[relax.Var, float, _Vars] | None:
    """The same of ``sqrt(mean(centred^2) + epsilon)``; the square is the last value between."""
    minus = graph.call(centred, "relax.subtract")
    if minus is None or not isinstance(minus.args[0], relax.Var):
        return None
    x = minus.args[0]
    if not _is_mean(graph, minus.args[1], x):
        return None
    sqrt = graph.call(root, "relax.sqrt")
    plus = None if sqrt is None else graph.call(sqrt.args[0], "relax.add")
    if plus is None:
        return None
    for variance, other in (tuple(plus.args), tuple(plus.args)[::-1]):
        epsilon = graph.constant(other)
        mean = graph.call(variance, "relax.mean")
        if epsilon is None or epsilon.size != 1 or mean is None:
            continue
        square = mean.args[0]
        if _is_mean(graph, variance, square) and _is_square(graph, square, centred):
            return x, float(epsilon.item()), (root, sqrt.args[0], variance, square)
    return None


def _is_mean(graph: Graph, value: relax.Expr, of: relax.Expr) -> bool:
    """Over the channels."""
    call = graph.call(value, "relax.mean")
    if call is None or not call.args[0].same_as(of) or call.attrs.axis is None:
        return False
    shape = shape_of(of)
    axes = [int(axis) % 4 for axis in call.attrs.axis]
    return len(shape) == 4 and shape[0] == 1 and axes == [1] and bool(call.attrs.keepdims)


def _is_square(graph: Graph, value: relax.Expr, of: relax.Expr) -> bool:
    product = graph.call(value, "relax.multiply", "relax.square")
    if product is not None:
        return all(bool(arg.same_as(of)) for arg in product.args)
    power = graph.call(value, "relax.power")
    if power is None or not power.args[0].same_as(of):
        return False
    exponent = graph.constant(power.args[1])
    return exponent is not None and bool(np.all(exponent == 2))
