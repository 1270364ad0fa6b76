"""How far scores lie from others, and how far float32 by itself lets them lie.

Two statistics, as each is blind to what the other sees: the root mean square over all scores finds
a weight that is off by a little everywhere, the largest finds a border that is off in one pixel.
Imports neither torch, onnx nor TVM: a device checks its artifact with it. numpy only where it
computes: what names a precision needs none.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

# What rounding one number to float32 changes it by at most, of its size.
UNIT = 2.0**-24


@dataclass(frozen=True)
class Deviation:
    """Of scores from others, in the scores' own unit."""

    rms: float
    largest: float

    @staticmethod
    def between(scores: "NDArray[Any]", reference: "NDArray[Any]") -> "Deviation":
        """Of one array from another of its shape. NaN anywhere makes both NaN, infinity infinite,
        unless both sides have the same infinity there."""
        import numpy as np

        squares = largest = 0.0
        for plane, wanted in zip(_planes(scores), _planes(reference), strict=True):
            with np.errstate(invalid="ignore"):
                error = np.abs(np.subtract(plane, wanted, dtype=np.float64))
            error[plane == wanted] = 0  # infinity minus itself is NaN
            peak = float(error.max(initial=0))
            largest = peak if peak > largest or peak != peak else largest
            squares += float(np.square(error).sum())
        return Deviation(math.sqrt(squares / max(1, scores.size)), largest)

    @staticmethod
    def size(scores: "NDArray[Any]") -> "Deviation":
        """Of scores from zero, infinite ones left out."""
        import numpy as np

        squares = peak = 0.0
        for plane in _planes(scores):
            finite = np.abs(plane[np.isfinite(plane)], dtype=np.float64)
            squares += float(np.square(finite).sum())
            peak = max(peak, float(finite.max(initial=0)))
        return Deviation(math.sqrt(squares / max(1, scores.size)), peak)

    def __mul__(self, factor: float) -> "Deviation":
        return Deviation(self.rms * factor, self.largest * factor)

    def times(self, other: "Deviation") -> "Deviation":
        """Each statistic as often as the other's."""
        return Deviation(self.rms * other.rms, self.largest * other.largest)

    def over(self, other: "Deviation") -> "Deviation":
        """Each statistic by the other's; of nothing, nothing."""
        return Deviation(self.rms / (other.rms or 1), self.largest / (other.largest or 1))

    def or_more(self, other: "Deviation") -> "Deviation":
        """The larger of both, each statistic by itself; NaN stays."""
        return Deviation(_larger(self.rms, other.rms), _larger(self.largest, other.largest))

    def or_less(self, other: "Deviation") -> "Deviation":
        """The smaller of both, each statistic by itself."""
        return Deviation(min(self.rms, other.rms), min(self.largest, other.largest))

    def within(self, allowed: "Deviation") -> bool:
        """Whether both are; NaN and infinity never are."""
        return self.rms <= allowed.rms < math.inf and self.largest <= allowed.largest < math.inf


def _planes(array: "NDArray[Any]") -> "NDArray[Any]":
    """What is taken to double at a time, so that memory does not hold all of it."""
    return array if array.ndim > 1 else array.reshape(1, -1)


def _larger(mine: float, theirs: float) -> float:
    return mine if mine >= theirs or math.isnan(mine) else theirs
