"""Functions of vectors that no CPU has an instruction for, as arithmetic on whole registers.

LLVM would call the C library's for each lane. NaN stays NaN.
"""

import math

from tvm.tirx import op

from deploy import ir

# exp(x) = 2^n exp(r), r = x - n ln 2 in two parts, |r| <= ln 2 / 2, where Taylor's polynomial of
# degree 7 is good to 6e-9 of its value; evaluated by Horner.
LN2_HIGH, LN2_LOW = 0.693359375, -2.12194440e-4
LOWEST, HIGHEST = -87.33, 88.72  # what float32 holds without denormals
TAYLOR = [1 / math.factorial(degree) for degree in range(7, -1, -1)]

# erf and tanh as x P(x^2) / Q(x^2), highest power first, on the range beyond which float32 has +-1
# only: coefficients of `python -m benchmarks.rational`. There is no exp in them, and nothing on the
# way is a denormal.
ERF_RANGE = 4.0
ERF_P = [
    1.91110053142446e-08, -1.94231032595018e-06, 1.47284846475122e-04, 3.99050093929790e-03,
    5.15246563864266e-02, 2.07123573642269e-01, 1.12837909405217e+00,
]  # fmt: skip
ERF_Q = [
    1.02109559510269e-03, 1.49579247077576e-02, 1.17970049650744e-01, 5.16889736368797e-01,
    1.00000000000000e+00,
]  # fmt: skip
TANH_RANGE = 9.0
TANH_P = [
    -8.48875967058743e-14, 5.27796816796505e-11, -2.02252680923658e-08, 1.11543190050074e-05,
    3.10395726150124e-03, 1.30840110454963e-01, 9.99999993393334e-01,
]  # fmt: skip
TANH_Q = [
    2.54614673232597e-04, 2.44951825885444e-02, 4.64173381486718e-01, 1.00000000000000e+00,
]  # fmt: skip


def exp(value: ir.Expr, lanes: int) -> ir.Expr:
    """e^value; below -87.33 what it is there, above 88.72 as well (3.4e38 at most)."""
    n, rest = _parts(_clamp(ir.bind(value), LOWEST, HIGHEST, lanes), lanes)
    # In two steps: 2^128 alone is no float32.
    half = ir.bind(op.floor(n * ir.const(0.5, lanes)))
    return rest * _power(half, lanes) * _power(n - half, lanes)


def exp_below_zero(value: ir.Expr, lanes: int) -> ir.Expr:
    """e^value of what is not above zero."""
    value = ir.bind(value)
    least = ir.const(LOWEST, lanes)
    n, rest = _parts(ir.bind(ir.select(value < least, least, value)), lanes)
    return rest * _power(n, lanes)


def _parts(x: ir.Expr, lanes: int) -> tuple[ir.Expr, ir.Expr]:
    """n and e^r, where 2^n e^r is e^x."""
    n = ir.bind(op.floor(x * ir.const(1 / math.log(2), lanes) + ir.const(0.5, lanes)))
    r = ir.bind(x - n * ir.const(LN2_HIGH, lanes))
    r = ir.bind(r - n * ir.const(LN2_LOW, lanes))
    return n, _horner(TAYLOR, r, lanes)


def sigmoid(value: ir.Expr, lanes: int) -> ir.Expr:
    """1 / (1 + e^-value)."""
    one = ir.const(1, lanes)
    return one / (one + exp(ir.const(0, lanes) - value, lanes))


def tanh(value: ir.Expr, lanes: int) -> ir.Expr:
    """The hyperbolic tangent, to 4e-7 of its value."""
    return _odd(value, TANH_RANGE, TANH_P, TANH_Q, lanes)


def erf(value: ir.Expr, lanes: int) -> ir.Expr:
    """The error function, to 5e-7 of its value."""
    return _odd(value, ERF_RANGE, ERF_P, ERF_Q, lanes)


def _odd(
    value: ir.Expr, reach: float, above: list[float], below: list[float], lanes: int
) -> ir.Expr:
    x = _clamp(value, -reach, reach, lanes)
    square = ir.bind(x * x)
    return x * (_horner(above, square, lanes) / _horner(below, square, lanes))


def _horner(coefficients: list[float], x: ir.Expr, lanes: int) -> ir.Expr:
    value = ir.const(coefficients[0], lanes)
    for coefficient in coefficients[1:]:
        value = value * x + ir.const(coefficient, lanes)
    return ir.bind(value)


def _power(n: ir.Expr, lanes: int) -> ir.Expr:
    """2^n of a whole float: its exponent's bits."""
    bits = (ir.cast(n, "int32", lanes) + ir.const_int(127, lanes)) << ir.const_int(23, lanes)
    return op.reinterpret(f"float32x{lanes}" if lanes > 1 else "float32", bits)


def _clamp(value: ir.Expr, least: float, most: float, lanes: int) -> ir.Expr:
    value = ir.bind(ir.select(value < ir.const(least, lanes), ir.const(least, lanes), value))
    return ir.bind(ir.select(value > ir.const(most, lanes), ir.const(most, lanes), value))
