"""Exponentials and what is made of them as arithmetic, for loop nests that TVM lowers: LLVM would
call the C library's for each element. As `deploy.cpu.functions`, NaN stays NaN."""

import math
from collections.abc import Callable, Sequence

from tvm import relax, te, tirx

from deploy.cpu import functions
from deploy.graph.importer.node import Scalar, shape_of, sizes

Legalize = Callable[[relax.BlockBuilder, relax.Call], relax.Expr]
Function = Callable[[Scalar], Scalar]


def exp(x: Scalar) -> Scalar:
    """e^x; below -87.33 what it is there, above 88.72 as well (3.4e38 at most)."""

    def power(n: Scalar) -> Scalar:
        bits = (tirx.Cast("int32", n) + 127) << 23
        return tirx.reinterpret("float32", bits)

    def from_n(x: Scalar, n: Scalar) -> Scalar:
        r = (x - n * _number(functions.LN2_HIGH)) - n * _number(functions.LN2_LOW)
        rest = _let(r, lambda r: _horner(functions.TAYLOR, r))
        # In two steps: 2^128 alone is no float32.
        return _let(tirx.floor(n * _number(0.5)), lambda half: rest * power(half) * power(n - half))

    def from_clamped(x: Scalar) -> Scalar:
        n = tirx.floor(x * _number(1 / math.log(2)) + _number(0.5))
        return _let(n, lambda n: from_n(x, n))

    return _let(_clamp(x, functions.LOWEST, functions.HIGHEST), from_clamped)


def sigmoid(x: Scalar) -> Scalar:
    """1 / (1 + e^-x)."""
    return _number(1) / (_number(1) + exp(_number(0) - x))


def silu(x: Scalar) -> Scalar:
    """x sigmoid(x)."""
    return _let(x, lambda x: x * sigmoid(x))


def erf(x: Scalar) -> Scalar:
    """The error function, to 5e-7 of its value."""
    return _odd(x, functions.ERF_RANGE, functions.ERF_P, functions.ERF_Q)


def tanh(x: Scalar) -> Scalar:
    """The hyperbolic tangent, to 4e-7 of its value."""
    return _odd(x, functions.TANH_RANGE, functions.TANH_P, functions.TANH_Q)


def gelu(x: Scalar) -> Scalar:
    """x Phi(x), by the error function."""
    half, root = _number(0.5), _number(math.sqrt(0.5))
    return _let(x, lambda x: half * x * (_number(1) + erf(x * root)))


def gelu_tanh(x: Scalar) -> Scalar:
    """x Phi(x), by the hyperbolic tangent."""
    half, root = _number(0.5), _number(math.sqrt(2 / math.pi))

    def of(x: Scalar) -> Scalar:
        inner = root * (x + _number(0.044715) * x * x * x)
        return half * x * (_number(1) + tanh(inner))

    return _let(x, of)


def _odd(x: Scalar, reach: float, above: Sequence[float], below: Sequence[float]) -> Scalar:
    def of(x: Scalar) -> Scalar:
        return _let(x * x, lambda s: x * (_horner(above, s) / _horner(below, s)))

    return _let(_clamp(x, -reach, reach), of)


def _clamp(x: Scalar, least: float, most: float) -> Scalar:
    """Not by minimum and maximum, which lose NaN."""

    def above(x: Scalar) -> Scalar:
        return tirx.Select(x < _number(least), _number(least), x)

    return _let(_let(x, above), lambda x: tirx.Select(x > _number(most), _number(most), x))


def _horner(coefficients: Sequence[float], x: Scalar) -> Scalar:
    value: Scalar = _number(coefficients[0])
    for coefficient in coefficients[1:]:
        value = value * x + _number(coefficient)
    return value


def _number(value: float) -> Scalar:
    return tirx.const(value, "float32")


def _let(value: Scalar, body: Function) -> Scalar:
    """`body` of a value that is computed once."""
    var = tirx.Var("t", "float32")
    return tirx.Let(var, value, body(var))


def elementwise(function: Function, *tensors: te.Tensor) -> te.Tensor:
    """A function of the first tensor's elements."""
    (x,) = tensors
    shape = [int(side) for side in x.shape]
    return te.compute(sizes(shape), lambda *place: function(x(*place)), name="function")


def _legalize(function: Function, name: str) -> Legalize:
    def legalize(builder: relax.BlockBuilder, call: relax.Call) -> relax.Expr:
        if str(call.args[0].ty.dtype) != "float32" or not shape_of(call.args[0]):
            return call.op.get_attr("FLegalize")(builder, call)
        return builder.call_te(
            lambda x: elementwise(function, x), call.args[0], primfunc_name_hint=name
        )

    return legalize


FUNCTIONS: dict[str, Legalize] = {
    f"relax.{'nn.' * nn}{function.__name__}": _legalize(function, function.__name__)
    for nn, function in (
        (False, exp), (False, sigmoid), (False, erf), (False, tanh), (True, silu), (True, gelu),
        (True, gelu_tanh),
    )
}  # fmt: skip
