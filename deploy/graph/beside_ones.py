"""Matrices beside a row or a column of ones, whose products are sums beside products."""

import math
from dataclasses import dataclass

from deploy.graph.matrix_views import Emit, View, product, total_over_pixels


@dataclass(frozen=True)
class Joined:
    """Views one behind the other on an axis; None for a one in each place."""

    axis: int
    parts: tuple[View | None, ...]

    def cut(self, begin: int, end: int) -> View | None:
        """The view that has these places and no others."""
        size = sum(map(self._size, self.parts))
        begin, end = (v + size if v < 0 else min(v, size) for v in (begin, end))
        for part in self.parts:
            if (begin, end) == (0, self._size(part)):
                return part
            begin, end = begin - self._size(part), end - self._size(part)
        return None

    def _size(self, part: View | None) -> int:
        return 1 if part is None else math.prod(atom.size for atom in part.order[self.axis])


def product_beside(emit: Emit, a: View | Joined | None, b: View | Joined | None) -> Joined | None:
    """The product of rows that are joined, or by columns that are: part by part."""
    parts: list[View | None]
    if isinstance(a, Joined) and isinstance(b, View) and a.axis == len(b.order) - 2:
        joined, axis = a, a.axis
        parts = [
            total_over_pixels(emit, b, axis) if part is None else product(emit, part, b)
            for part in joined.parts
        ]
    elif isinstance(a, View) and isinstance(b, Joined) and b.axis == len(a.order) - 1:
        joined, axis = b, b.axis
        parts = [
            total_over_pixels(emit, a, axis) if part is None else product(emit, a, part)
            for part in joined.parts
        ]
    else:
        return None
    return None if None in parts else Joined(axis, tuple(parts))
