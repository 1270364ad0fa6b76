"""Scores of attention: a softmax of products of matrices, with what is done to them before."""

import math
from dataclasses import dataclass

import numpy as np
from tvm import relax

from deploy.graph.view import Array, Graph, shape_of

_MOST = 1 << 22  # elements of a bias, that it may be written out for groups and heads


@dataclass(frozen=True)
class Bias:
    """Constants that are added to the scores, which broadcast to (*batch, queries, keys)."""

    constants: tuple[Array, ...]
    shapes: tuple[tuple[int, ...], ...]  # of the scores where each is added

    def of(self, groups: int, heads: int) -> Array | None:
        """(1 or groups, heads, queries, keys); None where that is too large."""
        total = np.zeros((), np.float32)
        for constant, shape in zip(self.constants, self.shapes, strict=True):
            *batch, queries, keys = shape
            padded = constant.reshape((1,) * (len(shape) - constant.ndim) + constant.shape)
            # The same for all groups: whose axes stand first.
            while len(batch) > 1 and padded.shape[0] == 1 and math.prod(batch) > heads:
                batch, padded = batch[1:], padded[0]
            count = math.prod(batch)
            if count % heads or count * queries * keys > _MOST:
                return None
            if heads > 1 and count not in (heads, groups * heads):
                return None
            full = np.broadcast_to(padded, (*batch, queries, keys))
            total = total + full.reshape(count // heads, heads, queries, keys)
        return np.ascontiguousarray(total, np.float32)


@dataclass(frozen=True)
class Scores:
    """softmax(scale * first second + bias), over the last axis."""

    factors: tuple[relax.Expr, relax.Expr]
    scale: float
    bias: Bias | None
    inner: tuple[relax.Var, ...]  # the values between, this one among them


def scores_of(graph: Graph, var: relax.Expr) -> Scores | None:
    """What a softmax is made of; None for anything else."""
    softmax = graph.call(var, "relax.nn.softmax")
    if softmax is None:
        return None
    if int(softmax.attrs.axis) % len(shape_of(var)) != len(shape_of(var)) - 1:
        return None
    inner, value = [var], softmax.args[0]
    constants: list[Array] = []
    shapes: list[tuple[int, ...]] = []
    while (found := _before(graph, value)) is not None:
        inner.append(value)
        before, constant = found
        if constant is not None:
            constants.append(constant)
            shapes.append(shape_of(value))
        value = before
    scaled, scale = _scaled(graph, value)
    if scaled is not value:
        inner.append(value)
    product = graph.call(scaled, "relax.matmul")
    if product is None or any(graph.constant(arg) is not None for arg in product.args):
        return None
    batch = shape_of(scaled)[:-2]
    if any(shape_of(arg)[:-2] != batch for arg in product.args):
        return None
    bias = Bias(tuple(constants), tuple(shapes)) if constants else None
    return Scores(tuple(product.args), scale, bias, (*inner, scaled))


def _before(graph: Graph, value: relax.Expr) -> tuple[relax.Var, Array | None] | None:
    """What a constant was added to, or whose matrices were counted otherwise."""
    moved = graph.call(value, "relax.reshape")
    if moved is not None and shape_of(moved.args[0])[-2:] == shape_of(value)[-2:]:
        return moved.args[0], None
    added = graph.call(value, "relax.add")
    if added is not None:
        for other, term in (tuple(added.args), tuple(added.args)[::-1]):
            constant = graph.constant(term)
            if constant is not None and isinstance(other, relax.Var):
                return other, constant
    return None


def _scaled(graph: Graph, var: relax.Expr) -> tuple[relax.Expr, float]:
    """What is multiplied by a number, and the number; 1 for anything else."""
    call = graph.call(var, "relax.multiply", "relax.divide")
    for turned in (False, True) if call is not None else ():
        value, other = call.args[::-1] if turned else call.args
        number = graph.constant(other)
        if number is not None and number.size == 1 and isinstance(value, relax.Var):
            if call.op.name == "relax.multiply":
                return value, float(number.item())
            if not turned and number.item():
                return value, 1 / float(number.item())
    return var, 1.0
