"""Sums and means as loop nests whose rounding errors stay small."""

import math
from collections.abc import Callable
from typing import Any

from tvm import relax, te, tirx, topi

from deploy.graph.view import shape_of

_PART = 32  # numbers that are added up one after the other

Legalize = Callable[[relax.BlockBuilder, relax.Call], relax.Expr]


def _sum(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    return _added_up(builder, call)


def _mean(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    count = math.prod(shape_of(call.args[0])[axis] for axis in _axes(call))
    number = tirx.const(count, str(call.args[0].ty.dtype))
    return builder.call_te(lambda x: topi.divide(x, number), _added_up(builder, call))


def _added_up(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """In parts of at most `_PART`, and these in parts again: one after the other, n equal numbers
    would be off by up to n roundings, which a normalisation behind them makes large."""
    x, keepdims = call.args[0], bool(call.attrs.keepdims)
    if not str(x.ty.dtype).startswith("float"):
        return builder.emit(builder.call_te(topi.sum, x, _axes(call), keepdims))
    for axis in reversed(_axes(call)):
        while (size := shape_of(x)[axis]) > _PART:
            x = builder.emit(builder.call_te(_parts, x, axis, _part_of(size)))
        x = builder.emit(builder.call_te(topi.sum, x, axis, keepdims))
    return x


def _axes(call: relax.Call) -> list[int]:
    rank = len(shape_of(call.args[0]))
    axes = call.attrs.axis
    return sorted(int(axis) % rank for axis in (range(rank) if axes is None else axes))


def _part_of(size: int) -> int:
    """Numbers in a part: a divisor where there is one of some size."""
    return next((n for n in range(_PART, _PART // 4, -1) if size % n == 0), _PART)


def _parts(x: te.Tensor, axis: int, part: int) -> te.Tensor:
    """The sums of `part` neighbours along an axis; the last part may have fewer."""
    size = int(x.shape[axis])
    shape = [*x.shape[:axis], tirx.const(-(-size // part), "int64"), *x.shape[axis + 1 :]]
    k = te.reduce_axis((tirx.const(0, "int64"), tirx.const(part, "int64")), "k")

    def element(*place: Any) -> Any:  # noqa: ANN401 - TVM's expressions
        at = place[axis] * part + k
        if size % part == 0:
            return te.sum(x(*place[:axis], at, *place[axis + 1 :]), axis=[k])
        there = tirx.min(at, tirx.const(size - 1, "int64"))
        value = x(*place[:axis], there, *place[axis + 1 :])
        return te.sum(tirx.Select(at < size, value, tirx.const(0, x.dtype)), axis=[k])

    return te.compute(shape, element, name="parts")


LEGALIZED: dict[str, Legalize] = {"relax.sum": _sum, "relax.mean": _mean}
