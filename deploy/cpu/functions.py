"""Functions of vectors that no CPU has an instruction for, as arithmetic on whole registers.

The C library's, which LLVM would call for each lane, take twenty times as long. NaN stays NaN.
"""

import math

from tvm.tirx import op

from deploy import ir

# exp(x) = 2^n exp(r), r = x - n ln 2 in two parts, |r| <= ln 2 / 2, where Taylor's polynomial of
# degree 6 is good to 2e-8 of its value; evaluated by Horner.
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4
_LOWEST, _HIGHEST = -87.33, 88.72  # what float32 holds without denormals
_TAYLOR = [1 / math.factorial(degree) for degree in range(7, -1, -1)]

# erf(x) for |x| <= 1 as x P(x^2), and beyond as 1 - exp(-x^2) Q(1 / (1 + p |x|)): fitted here by
# tests/deploy/cpu/test_functions.py's bound, coefficients of Abramowitz and Stegun 7.1.26.
_ERF_SERIES = [
    2 / math.sqrt(math.pi) * (-1) ** n / (math.factorial(n) * (2 * n + 1)) for n in range(9, -1, -1)
]


def exp(value: ir.Expr, lanes: int) -> ir.Expr:
    """e^value; below -87.33 what it is there, above 88.72 as well (3.4e38 at most)."""
    x = _clamp(ir.bind(value), _LOWEST, _HIGHEST, lanes)
    n = ir.bind(op.floor(x * ir.const(1 / math.log(2), lanes) + ir.const(0.5, lanes)))
    r = ir.bind(x - n * ir.const(_LN2_HIGH, lanes))
    r = ir.bind(r - n * ir.const(_LN2_LOW, lanes))
    # In two steps: 2^128 alone is no float32.
    half = ir.bind(op.floor(n * ir.const(0.5, lanes)))
    return _horner(_TAYLOR, r, lanes) * _power(half, lanes) * _power(n - half, lanes)


def sigmoid(value: ir.Expr, lanes: int) -> ir.Expr:
    """1 / (1 + e^-value)."""
    one = ir.const(1, lanes)
    return one / (one + exp(ir.const(0, lanes) - value, lanes))


def tanh(value: ir.Expr, lanes: int) -> ir.Expr:
    """By e^2x, near zero by its series, as the quotient there loses digits."""
    x = ir.bind(value)
    one, two = ir.const(1, lanes), ir.const(2, lanes)
    far = one - two / (exp(two * x, lanes) + one)
    square = ir.bind(x * x)
    near = x * _horner([62 / 2835, -17 / 315, 2 / 15, -1 / 3, 1.0], square, lanes)
    return ir.select(square < ir.const(0.05, lanes), near, far)


def erf(value: ir.Expr, lanes: int) -> ir.Expr:
    """The error function, to 2e-7."""
    x = ir.bind(value)
    square = ir.bind(x * x)
    near = x * _horner(_ERF_SERIES, square, lanes)
    size = ir.bind(ir.select(x < ir.const(0, lanes), ir.const(0, lanes) - x, x))
    one = ir.const(1, lanes)
    t = ir.bind(one / (one + ir.const(0.3275911, lanes) * size))
    tail = t * _horner(
        [1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592], t, lanes
    )
    far = one - tail * exp(ir.const(0, lanes) - square, lanes)
    far = ir.select(x < ir.const(0, lanes), ir.const(0, lanes) - far, far)
    return ir.select(square < one, near, far)


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
