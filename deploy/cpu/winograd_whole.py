"""Winograd's minimal filtering in whole numbers, exact: F(4, 3) of bytes by products of 16 bits.

Its points are 0, 1, -1, 2, -1/2 and infinity, each as p : q, so that windows and inputs need no
fractions: a byte becomes at most 98 * 255 in size along both axes, a weight 49 * 127. What all
denominators divide is left to the results, which come out 30 times as large along each axis. Sums
of products and results are taken modulo 2^32: 900 = 4 * 225, and 225 has an inverse there, so that
of 900 times a number below 2^29 the number is found again, however often sums ran over. Other
points leave less room: with 0, +-1, +-2 and infinity it is 576 = 64 * 9 and 2^25.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from deploy import ir

LARGEST = 2**29  # results are smaller in size
_ODD_INVERSE = pow(225, -1, 2**32)


@dataclass(frozen=True)
class WholeTransform:
    """F(4, 3) at stride 1 of whole numbers; `deploy.cpu.winograd.Transform` says what is what."""

    outputs: ClassVar[int] = 4
    taps: ClassVar[int] = 3
    points: ClassVar[int] = 6

    def inputs(self, d: Sequence[ir.Expr], lanes: int) -> list[ir.Expr]:
        """As `Transform.inputs`, int16."""

        def total(*terms: tuple[int, ir.Expr]) -> ir.Expr:
            return ir.bind(whole_sum(terms, "i16", lanes))

        # x^2 - 1 is a factor of four rows, (x - 2) (2 x + 1) of four.
        e = [total((1, d[k + 2]), (-1, d[k])) for k in range(4)]
        odd = total((2, e[1]), (-3, d[2]))
        even = total((2, e[2]), (-3, d[3]))
        return [
            total((2, e[2]), (-3, e[1]), (-2, e[0])),
            total((1, even), (1, odd)),
            total((1, even), (-1, odd)),
            total((2, e[2]), (1, e[1])),
            total((1, e[2]), (-2, e[1])),
            total((2, e[3]), (-3, e[2]), (-2, e[1])),
        ]

    def result(self, m: Sequence[ir.Expr], lanes: int) -> list[ir.Expr]:
        """As `Transform.result`, int32: 30 times the outputs, modulo 2^32."""

        def total(*terms: tuple[int, ir.Expr]) -> ir.Expr:
            return ir.bind(whole_sum(terms, "i32", lanes))

        sums, differences = total((5, m[2]), (-5, m[1])), total((-5, m[1]), (-5, m[2]))
        return [
            total((15, m[0]), (1, sums), (1, m[3]), (-8, m[4])),
            total((1, differences), (2, m[3]), (4, m[4])),
            total((1, sums), (4, m[3]), (-2, m[4])),
            total((1, differences), (8, m[3]), (1, m[4]), (15, m[5])),
        ]

    def window(self) -> NDArray[Any]:
        """As `Transform.window`: whole numbers."""
        places = [(0, 1), (1, 1), (-1, 1), (2, 1), (-1, 2), (1, 0)]
        return np.array([[p**k * q ** (2 - k) for k in range(3)] for p, q in places], np.float64)


def restored(value: ir.Expr, lanes: int) -> ir.Expr:
    """Of 900 times a number of less than `LARGEST`, modulo 2^32, the number."""
    kind = f"<{lanes} x i32>"
    text = (
        f"define linkonce_odr {kind} @hmseg_restored_{lanes}({kind} %x) alwaysinline {{\n"
        f"  %m = mul {kind} %x, splat (i32 {_ODD_INVERSE - 2**32 * (_ODD_INVERSE >> 31)})\n"
        f"  %r = ashr {kind} %m, splat (i32 2)\n  ret {kind} %r\n}}\n"
    )
    return ir.call_llvm(f"hmseg_restored_{lanes}", text, f"int32x{lanes}", value)


def whole_sum(terms: Sequence[tuple[int, ir.Expr]], kind: str, lanes: int) -> ir.Expr:
    """Of factor * vector, modulo what the type holds: TVM's own sums say that nothing runs over."""
    vector = f"<{lanes} x {kind}>"
    words = "_".join(str(factor).replace("-", "m") for factor, _ in terms)
    name = f"hmseg_sum_{kind}_{lanes}_{words}"
    given = ", ".join(f"{vector} %x{i}" for i in range(len(terms)))
    lines = [f"define linkonce_odr {vector} @{name}({given}) alwaysinline {{"]
    for i, (factor, _) in enumerate(terms):
        lines.append(f"  %p{i} = mul {vector} %x{i}, splat ({kind} {factor})")
        before = "%p0" if i == 1 else f"%s{i - 1}"
        if i:
            lines.append(f"  %s{i} = add {vector} {before}, %p{i}")
    lines.append(f"  ret {vector} %s{len(terms) - 1}\n}}\n")
    dtype = f"int{kind[1:]}x{lanes}"
    return ir.call_llvm(name, "\n".join(lines), dtype, *[value for _, value in terms])
