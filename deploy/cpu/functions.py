"""Functions of vectors that no CPU has an instruction for, as arithmetic on whole registers.

LLVM would call the C library's for each lane. NaN stays NaN.
"""

import math
from collections.abc import Callable

from tvm.tirx import op

from deploy import ir

# exp(x) = 2^n exp(r), r = x - n ln 2 in two parts, |r| <= ln 2 / 2, where Taylor's polynomial of
# degree 7 is good to 6e-9 of its value; evaluated by Horner.
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4
_LOWEST, _HIGHEST = -87.33, 88.72  # what float32 holds without denormals
_TAYLOR = [1 / math.factorial(degree) for degree in range(7, -1, -1)]

# erf and tanh as x P(x^2) / Q(x^2), highest power first, on the range beyond which float32 has +-1
# only: coefficients of `python -m benchmarks.rational`. There is no exp in them, and nothing on the
# way is a denormal.
ERF_RANGE = 4.0
_ERF_P = [
    1.91110053142446e-08, -1.94231032595018e-06, 1.47284846475122e-04, 3.99050093929790e-03,
    5.15246563864266e-02, 2.07123573642269e-01, 1.12837909405217e+00,
]  # fmt: skip
_ERF_Q = [
    1.02109559510269e-03, 1.49579247077576e-02, 1.17970049650744e-01, 5.16889736368797e-01,
    1.00000000000000e+00,
]  # fmt: skip
TANH_RANGE = 9.0
_TANH_P = [
    -8.48875967058743e-14, 5.27796816796505e-11, -2.02252680923658e-08, 1.11543190050074e-05,
    3.10395726150124e-03, 1.30840110454963e-01, 9.99999993393334e-01,
]  # fmt: skip
_TANH_Q = [
    2.54614673232597e-04, 2.44951825885444e-02, 4.64173381486718e-01, 1.00000000000000e+00,
]  # fmt: skip

_ARTANH = [2 / (2 * power + 1) for power in range(7, -1, -1)]  # 2 artanh(s) / s by s^2

Let = Callable[[ir.Expr, Callable[[ir.Expr], ir.Expr]], ir.Expr]


def bound(value: ir.Expr, body: Callable[[ir.Expr], ir.Expr]) -> ir.Expr:
    """`body` of a value that is computed once: in a kernel, by a variable."""
    return body(ir.bind(value))


def exp(value: ir.Expr, lanes: int, let: Let = bound) -> ir.Expr:
    """e^value; below -87.33 what it is there, above 88.72 as well (3.4e38 at most)."""

    def whole(n: ir.Expr, rest: ir.Expr) -> ir.Expr:
        # In two steps: 2^128 alone is no float32.
        half = op.floor(n * ir.const(0.5, lanes))
        return let(half, lambda half: rest * _power(half, lanes) * _power(n - half, lanes))

    return _clamp(value, _LOWEST, _HIGHEST, lanes, let, lambda x: _parts(x, lanes, let, whole))


def exp_below_zero(value: ir.Expr, lanes: int, let: Let = bound) -> ir.Expr:
    """e^value of what is not above zero."""
    least = ir.const(_LOWEST, lanes)

    def from_least(x: ir.Expr) -> ir.Expr:
        return _parts(x, lanes, let, lambda n, rest: rest * _power(n, lanes))

    return let(value, lambda value: let(ir.select(value < least, least, value), from_least))


def _parts(
    x: ir.Expr, lanes: int, let: Let, body: Callable[[ir.Expr, ir.Expr], ir.Expr]
) -> ir.Expr:
    """`body` of n and e^r, where 2^n e^r is e^x."""

    def from_n(n: ir.Expr) -> ir.Expr:
        r = x - n * ir.const(_LN2_HIGH, lanes)

        def from_r(r: ir.Expr) -> ir.Expr:
            return let(_horner(_TAYLOR, r, lanes), lambda rest: body(n, rest))

        return let(r, lambda r: let(r - n * ir.const(_LN2_LOW, lanes), from_r))

    return let(op.floor(x * ir.const(1 / math.log(2), lanes) + ir.const(0.5, lanes)), from_n)


def sigmoid(value: ir.Expr, lanes: int, let: Let = bound) -> ir.Expr:
    """1 / (1 + e^-value)."""
    one = ir.const(1, lanes)
    return one / (one + exp(ir.const(0, lanes) - value, lanes, let))


def tanh(value: ir.Expr, lanes: int, let: Let = bound) -> ir.Expr:
    """The hyperbolic tangent, to 4e-7 of its value."""
    return _odd(value, TANH_RANGE, (_TANH_P, _TANH_Q), lanes, let)


def erf(value: ir.Expr, lanes: int, let: Let = bound) -> ir.Expr:
    """The error function, to 5e-7 of its value."""
    return _odd(value, ERF_RANGE, (_ERF_P, _ERF_Q), lanes, let)


def swish(value: ir.Expr, lanes: int, let: Let = bound) -> ir.Expr:
    """value sigmoid(value)."""
    return let(value, lambda value: value * sigmoid(value, lanes, let))


def gelu(value: ir.Expr, lanes: int, let: Let = bound) -> ir.Expr:
    """value Phi(value), by the error function."""
    half, one, root = (ir.const(number, lanes) for number in (0.5, 1, 1 / math.sqrt(2)))
    return let(value, lambda x: half * x * (one + erf(x * root, lanes, let)))


def gelu_tanh(value: ir.Expr, lanes: int, let: Let = bound) -> ir.Expr:
    """value Phi(value), by the hyperbolic tangent."""
    half, one, root = (ir.const(number, lanes) for number in (0.5, 1, math.sqrt(2 / math.pi)))

    def of(x: ir.Expr) -> ir.Expr:
        inner = root * (x + ir.const(0.044715, lanes) * x * x * x)
        return half * x * (one + tanh(inner, lanes, let))

    return let(value, of)


def softplus(value: ir.Expr, lanes: int, let: Let = bound) -> ir.Expr:
    """log(1 + e^value), as the value where it is positive and log(1 + e^-|value|)."""
    zero = ir.const(0, lanes)

    def of(x: ir.Expr) -> ir.Expr:
        below = exp_below_zero(ir.select(x < zero, x, zero - x), lanes, let)
        positive = ir.select(x < zero, zero, x)  # NaN of NaN
        return let(below, lambda e: positive + _log1p(e, lanes, let))

    return let(value, of)


def mish(value: ir.Expr, lanes: int, let: Let = bound) -> ir.Expr:
    """value tanh(softplus(value)): value n / (n + 2) of n = e (e + 2), e = e^value; from 20 on the
    quotient is one."""
    two = ir.const(2, lanes)

    def of(x: ir.Expr) -> ir.Expr:
        e = exp(ir.select(x > ir.const(20, lanes), ir.const(20, lanes), x), lanes, let)
        n = let(e, lambda e: e * (e + two))
        return let(n, lambda n: x * (n / (n + two)))

    return let(value, of)


def elu(value: ir.Expr, alpha: ir.Expr, lanes: int, let: Let = bound) -> ir.Expr:
    """The value, below zero alpha (e^value - 1)."""
    zero, one = ir.const(0, lanes), ir.const(1, lanes)

    def of(x: ir.Expr) -> ir.Expr:
        below = exp_below_zero(ir.select(x < zero, x, zero), lanes, let)
        return ir.select(x < zero, alpha * (below - one), x)

    return let(value, of)


def _log1p(e: ir.Expr, lanes: int, let: Let) -> ir.Expr:
    """log(1 + e) of e from 0 to 1: 2 artanh(s), s = e / (2 + e), at most 1/3, where the series up
    to s^15 is good to 2e-9 of its value."""

    def of(s: ir.Expr) -> ir.Expr:
        return let(s * s, lambda square: s * _horner(_ARTANH, square, lanes))

    return let(e / (ir.const(2, lanes) + e), of)


def _odd(
    value: ir.Expr, reach: float, parts: tuple[list[float], list[float]], lanes: int, let: Let
) -> ir.Expr:
    above, below = parts

    def of(x: ir.Expr) -> ir.Expr:
        return let(
            x * x,
            lambda square: x * (_horner(above, square, lanes) / _horner(below, square, lanes)),
        )

    return _clamp(value, -reach, reach, lanes, let, of)


def _horner(coefficients: list[float], x: ir.Expr, lanes: int) -> ir.Expr:
    value = ir.const(coefficients[0], lanes)
    for coefficient in coefficients[1:]:
        value = value * x + ir.const(coefficient, lanes)
    return value


def _power(n: ir.Expr, lanes: int) -> ir.Expr:
    """2^n of a whole float: its exponent's bits."""
    bits = (ir.cast(n, "int32", lanes) + ir.const_int(127, lanes)) << ir.const_int(23, lanes)
    return op.reinterpret(f"float32x{lanes}" if lanes > 1 else "float32", bits)


def _clamp(
    value: ir.Expr, least: float, most: float, lanes: int, let: Let,
    body: Callable[[ir.Expr], ir.Expr],
) -> ir.Expr:  # fmt: skip
    """`body` of the value between two numbers. Not by minimum and maximum, which lose NaN."""
    low, high = ir.const(least, lanes), ir.const(most, lanes)

    def above(x: ir.Expr) -> ir.Expr:
        return let(ir.select(x > high, high, x), body)

    return let(value, lambda x: let(ir.select(x < low, low, x), above))
