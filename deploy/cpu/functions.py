"""Functions of vectors that no CPU has an instruction for, as arithmetic on whole registers.

The C library's, which LLVM would call for each lane, take twenty times as long. NaN stays NaN.
"""

import math

from tvm.tirx import op

from deploy import ir

# exp(x) = 2^n exp(r), r = x - n ln 2 in two parts, |r| <= ln 2 / 2, where Taylor's polynomial of
# degree 7 is good to 6e-9 of its value; evaluated by Horner.
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4
_LOWEST, _HIGHEST = -87.33, 88.72  # what float32 holds without denormals
_TAYLOR = [1 / math.factorial(degree) for degree in range(7, -1, -1)]

# erf and tanh as x P(x^2) / Q(x^2), highest power first, on the range beyond which float32 has +-1
# only. The coefficients are those of Eigen's packet math (MPL-2.0), where both forms come from.
# Without exp they take a third of its time, and nothing on the way is a denormal.
_ERF_RANGE = 4.0
_ERF_P = [
    -2.72614225801306e-10, 2.77068142495902e-08, -2.10102402082508e-06, -5.69250639462346e-05,
    -7.34990630326855e-04, -2.95459980854025e-03, -1.60960333262415e-02,
]  # fmt: skip
_ERF_Q = [
    -1.45660718464996e-05, -2.13374055278905e-04, -1.68282697438203e-03, -7.37332916720468e-03,
    -1.42647390514189e-02,
]  # fmt: skip
_TANH_RANGE = 7.90531110763549805
_TANH_P = [
    -2.76076847742355e-16, 2.00018790482477e-13, -8.60467152213735e-11, 5.12229709037114e-08,
    1.48572235717979e-05, 6.37261928875436e-04, 4.89352455891786e-03,
]  # fmt: skip
_TANH_Q = [
    1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03,
]  # fmt: skip


def exp(value: ir.Expr, lanes: int) -> ir.Expr:
    """e^value; below -87.33 what it is there, above 88.72 as well (3.4e38 at most)."""
    n, rest = _parts(_clamp(ir.bind(value), _LOWEST, _HIGHEST, lanes), lanes)
    # In two steps: 2^128 alone is no float32.
    half = ir.bind(op.floor(n * ir.const(0.5, lanes)))
    return rest * _power(half, lanes) * _power(n - half, lanes)


def exp_below_zero(value: ir.Expr, lanes: int) -> ir.Expr:
    """e^value of what is not above zero."""
    value = ir.bind(value)
    least = ir.const(_LOWEST, lanes)
    n, rest = _parts(ir.bind(ir.select(value < least, least, value)), lanes)
    return rest * _power(n, lanes)


def _parts(x: ir.Expr, lanes: int) -> tuple[ir.Expr, ir.Expr]:
    """n and e^r, where 2^n e^r is e^x."""
    n = ir.bind(op.floor(x * ir.const(1 / math.log(2), lanes) + ir.const(0.5, lanes)))
    r = ir.bind(x - n * ir.const(_LN2_HIGH, lanes))
    r = ir.bind(r - n * ir.const(_LN2_LOW, lanes))
    return n, _horner(_TAYLOR, r, lanes)


def sigmoid(value: ir.Expr, lanes: int) -> ir.Expr:
    """1 / (1 + e^-value)."""
    one = ir.const(1, lanes)
    return one / (one + exp(ir.const(0, lanes) - value, lanes))


def tanh(value: ir.Expr, lanes: int) -> ir.Expr:
    """The hyperbolic tangent, to 4e-7 of its value."""
    return _odd(value, _TANH_RANGE, _TANH_P, _TANH_Q, lanes)


def erf(value: ir.Expr, lanes: int) -> ir.Expr:
    """The error function, to 5e-7 of its value."""
    return _odd(value, _ERF_RANGE, _ERF_P, _ERF_Q, lanes)


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
