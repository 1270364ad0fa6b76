"""Sums and means as loop nests whose rounding errors stay small."""

import math
from collections.abc import Sequence

from tvm import relax, te, tirx, topi

from deploy.cpu import functions
from deploy.cpu.passes.legalize_functions import Legalize, elementwise
from deploy.graph.importer.node import Scalar, reduction, shape_of, sizes, spread

_PART = 32  # numbers that are added up one after the other
_VECTOR = 16  # floats, the longest
_WORTH_A_COPY = 1 << 20  # multiply-adds, beside which a copy of a matrix is small
_LONG = 256  # products, of a matrix's rows and columns, from which on they are added up in parts


def _sum(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    return _added_up(builder, call.args[0], _axes(call), bool(call.attrs.keepdims))


def _mean(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    count = math.prod(shape_of(call.args[0])[axis] for axis in _axes(call))
    number = tirx.const(count, str(call.args[0].ty.dtype))
    return builder.call_te(lambda x: topi.divide(x, number), _sum(builder, call))


def _softmax(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    x = call.args[0]
    axis = int(call.attrs.axis) % len(shape_of(x))
    if shape_of(x)[axis] <= _PART:
        return _usual(builder, call)
    most = builder.emit(builder.call_te(topi.max, x, axis, True))
    powers = builder.emit(builder.call_te(_powers, x, most, primfunc_name_hint="exp"))
    return builder.call_te(topi.divide, powers, _added_up(builder, powers, [axis], True))


def _powers(x: te.Tensor, most: te.Tensor) -> te.Tensor:
    shifted = topi.subtract(x, most)
    return elementwise(functions.exp, shifted) if x.dtype == "float32" else topi.exp(shifted)


def _usual(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    return call.op.get_attr("FLegalize")(builder, call)


def _added_up(
    builder: relax.BlockBuilder, x: relax.Expr, axes: list[int], keepdims: bool
) -> relax.Expr:
    """In parts of at most `_PART`, and these in parts again: one after the other, n equal numbers
    would be off by up to n roundings, which a normalisation behind them makes large."""
    if not str(x.ty.dtype).startswith("float"):
        return builder.emit(builder.call_te(topi.sum, x, axes, keepdims))
    for axis in reversed(axes):
        while (size := shape_of(x)[axis]) > _PART:
            x = builder.emit(builder.call_te(_parts, x, axis, _part_of(size)))
        x = builder.emit(builder.call_te(topi.sum, x, axis, keepdims))
    return x


def _matmul(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
    """In parts of each sum where it is long, as in attention over many places; with columns of
    zeros up to whole vectors where some are left over, as of tokens with one for the class."""
    (a, b), shape = (shape_of(arg) for arg in call.args), shape_of(call)
    if min(len(a), len(b)) < 2 or str(call.ty.dtype) != "float32":
        return _usual(builder, call)
    first, second = call.args
    columns, spare = shape[-1], -shape[-1] % _VECTOR
    if columns > _VECTOR and spare and math.prod(shape) * a[-1] >= _WORTH_A_COPY:
        behind = [0] * (len(b) - 1) + [spare]
        second = builder.emit(builder.call_te(topi.nn.pad, second, [0] * len(b), behind))
        shape = (*shape[:-1], columns + spare)
    if a[-1] < _LONG and shape == shape_of(call):
        return _usual(builder, call)
    parts = builder.emit(builder.call_te(_products, first, second, shape))
    product = builder.call_te(topi.sum, parts, 0, False)
    if shape == shape_of(call):
        return product
    begin, end = [0] * len(shape), list(shape_of(call))
    return builder.call_te(topi.strided_slice, builder.emit(product), begin, end)


def _products(a: te.Tensor, b: te.Tensor, shape: Sequence[int]) -> te.Tensor:
    """The product of two matrices, as parts that are to be added up: (parts, *shape)."""
    length = int(a.shape[-1])
    part = _part_of(length, _LONG // 2)
    count = -(-length // part)
    k = reduction(part)

    def element(number: Scalar, *place: Scalar) -> Scalar:
        *batch, row, column = place
        at = number * part + k
        there = tirx.min(at, tirx.const(length - 1, "int64")) if length % part else at
        value = spread(a, [*batch, row, there]) * spread(b, [*batch, there, column])
        if length % part:
            value = tirx.Select(at < length, value, tirx.const(0, a.dtype))
        return te.sum(value, axis=[k])

    return te.compute(sizes((count, *shape)), element, name="products")


def _axes(call: relax.Call) -> list[int]:
    rank = len(shape_of(call.args[0]))
    axes = call.attrs.axis
    return sorted(int(axis) % rank for axis in (range(rank) if axes is None else axes))


def _part_of(size: int, most: int = _PART) -> int:
    """Numbers in a part: a divisor where there is one of some size."""
    return next((n for n in range(most, most // 4, -1) if size % n == 0), most)


def _parts(x: te.Tensor, axis: int, part: int) -> te.Tensor:
    """The sums of `part` neighbours along an axis; the last part may have fewer."""
    size = int(x.shape[axis])
    shape = [int(side) for side in x.shape]
    shape[axis] = -(-size // part)
    k = reduction(part)

    def element(*place: Scalar) -> Scalar:
        at = place[axis] * part + k
        if size % part == 0:
            return te.sum(x(*place[:axis], at, *place[axis + 1 :]), axis=[k])
        there = tirx.min(at, tirx.const(size - 1, "int64"))
        value = x(*place[:axis], there, *place[axis + 1 :])
        return te.sum(tirx.Select(at < size, value, tirx.const(0, x.dtype)), axis=[k])

    return te.compute(sizes(shape), element, name="parts")


SUMS: dict[str, Legalize] = {
    "relax.matmul": _matmul,
    "relax.mean": _mean,
    "relax.nn.softmax": _softmax,
    "relax.sum": _sum,
}
