"""Winograd's minimal filtering F(m, r) along one axis: m outputs of a window of r taps by m + r - 1
products (S. Winograd, "Arithmetic Complexity of Computations", 1980; for two axes Lavin and Gray,
"Fast Algorithms for Convolutional Neural Networks", 2016).

The products are polynomials' values at points, one of them at infinity. Points decide the rounding
error: for six of them 0, +-5/8, +-3/2 give twice the error of the plain sum, the usual 0, +-1, +-2
four times (measured, `tests/deploy/cpu/test_winograd.py` holds the bound). Points come in pairs, so
that even and odd powers are added up once for both.

At stride 2 the taps of even number meet every second input, those of odd number the others: two
convolutions at stride 1, whose results are added.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy import ir

# Beside zero and infinity, by the number of points: pairs, and one without its opposite.
_PAIRS: dict[int, tuple[float, ...]] = {3: (), 4: (1.0,), 5: (3 / 4,), 6: (5 / 8, 3 / 2)}
_ALONE = {3: 1.0, 5: 3 / 2}


@dataclass(frozen=True)
class Transform:
    """F(outputs, taps) at stride 1; with one tap nothing is transformed."""

    outputs: int
    taps: int

    @property
    def points(self) -> int:
        """Products, and inputs that they are made of."""
        return self.outputs + self.taps - 1

    @property
    def _pairs(self) -> tuple[float, ...]:
        return _PAIRS[self.points]

    @property
    def _alone(self) -> float | None:
        return _ALONE.get(self.points)

    def inputs(self, d: Sequence[ir.Expr], lanes: int) -> list[ir.Expr]:
        """From `points` neighbouring inputs to a factor of each product."""
        if self.taps == 1:
            return list(d)
        all_pairs, alone = self._vanishing(), []
        if self._alone is not None:
            # Its own row, and x - p, which is a factor of all others.
            alone = [_sum([(c, d[k + 1]) for k, c in enumerate(all_pairs)], lanes)]
            factor = -self._alone
            d = [ir.bind(_sum([(1.0, b), (factor, a)], lanes)) for a, b in pairwise(d)]
        rows = [_sum([(c, d[k]) for k, c in enumerate(all_pairs)], lanes)]
        for point in self._pairs:
            # x (x + p) times the other points' polynomial: even and odd powers.
            other = self._vanishing(but=point)
            even = ir.bind(_sum([(c, d[k + 2]) for k, c in enumerate(other)], lanes))
            odd = ir.bind(_sum([(c * point, d[k + 1]) for k, c in enumerate(other)], lanes))
            rows += [even + odd, even - odd]
        rows += [*alone, _sum([(c, d[k + 1]) for k, c in enumerate(all_pairs)], lanes)]
        assert len(rows) == self.points
        return rows

    def result(self, m: Sequence[ir.Expr], lanes: int) -> list[ir.Expr]:
        """From the products to the outputs."""
        if self.taps == 1:
            return list(m)
        sums = [ir.bind(m[1 + 2 * i] + m[2 + 2 * i]) for i in range(len(self._pairs))]
        differences = [ir.bind(m[1 + 2 * i] - m[2 + 2 * i]) for i in range(len(self._pairs))]
        values = []
        for power in range(self.outputs):
            parts = differences if power % 2 else sums
            terms = [(p**power, part) for p, part in zip(self._pairs, parts, strict=True)]
            terms += [] if self._alone is None else [(self._alone**power, m[-2])]
            terms += [(1.0, m[0])] if power == 0 else []
            terms += [(1.0, m[-1])] if power == self.outputs - 1 else []
            values.append(_sum(terms, lanes))
        return values

    def window(self) -> NDArray[Any]:
        """(points, taps), float64: from the window to the other factor of each product."""
        if self.taps == 1:
            return np.ones((self.points, 1))
        places = [0.0, *(sign * p for p in self._pairs for sign in (1, -1))]
        places += [] if self._alone is None else [self._alone]
        rows = []
        for place in places:
            norm = np.prod([place - other for other in places if other != place])
            rows.append([place**k / norm for k in range(self.taps)])
        return np.array([*rows, [0.0] * (self.taps - 1) + [1.0]])

    def _vanishing(self, but: float | None = None) -> list[float]:
        """Coefficients, lowest first, of the product of x^2 - p^2; of odd powers they are zero."""
        coefficients = np.ones(1)
        for point in self._pairs:
            if point != but:
                coefficients = np.convolve(coefficients, [-point * point, 0, 1])
        return [float(c) for c in coefficients]


@dataclass(frozen=True)
class HalvingTransform:
    """F(outputs, taps) at stride 2: of the even taps and inputs, then of the odd ones."""

    outputs: int
    taps: int

    @property
    def points(self) -> int:
        """As `Transform.points`."""
        return self._even.points + self._odd.points

    @property
    def _even(self) -> Transform:
        return Transform(self.outputs, (self.taps + 1) // 2)

    @property
    def _odd(self) -> Transform:
        return Transform(self.outputs, self.taps // 2)

    def inputs(self, d: Sequence[ir.Expr], lanes: int) -> list[ir.Expr]:
        """As `Transform.inputs`."""
        return [*self._even.inputs(d[::2], lanes), *self._odd.inputs(d[1::2], lanes)]

    def result(self, m: Sequence[ir.Expr], lanes: int) -> list[ir.Expr]:
        """As `Transform.result`."""
        even = self._even.result(m[: self._even.points], lanes)
        odd = self._odd.result(m[self._even.points :], lanes)
        return [a + b for a, b in zip(even, odd, strict=True)]

    def window(self) -> NDArray[Any]:
        """As `Transform.window`."""
        both = np.zeros((self.points, self.taps))
        both[: self._even.points, ::2] = self._even.window()
        both[self._even.points :, 1::2] = self._odd.window()
        return both


def _sum(terms: list[tuple[float, ir.Expr]], lanes: int) -> ir.Expr:
    """Of factor * vector; the first one without a factor, if there is one, begins."""
    terms = sorted((term for term in terms if term[0]), key=lambda term: term[0] != 1)
    total = None
    for factor, value in terms:
        product = value if factor == 1 else value * ir.const(factor, lanes)
        total = product if total is None else total + product
    return total
