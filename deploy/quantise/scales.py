"""From ranges to 8 bits: scales, zero points, weights and biases. Numbers as ONNX's
DequantizeLinear has them: x = (q - zero point) * scale."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deploy.grid import Grid

LEVELS = 255  # of uint8, between the least and the largest number
MOST_WEIGHT = 127  # of int8, so that weights are symmetric
# A bias in units of a sum's scale leaves an int32 room for the sum itself: 255 * 127 for each of
# 32,000 products is as much again.
_MOST_BIAS = 2**30
_FINE_BIAS = 2**24  # of a channel whose weights are all zero: the bias alone is its output
_LEAST = 1e-30  # a range below is that of a map of zeros: its scale would not be a normal float


@dataclass(frozen=True)
class Range:
    """Between which a map's elements lie, or are held."""

    low: float
    high: float

    def with_zero(self) -> "Range":
        """It and zero, which padding is made of and which has to be a number of the grid."""
        return Range(min(self.low, 0.0), max(self.high, 0.0))

    def union(self, other: "Range") -> "Range":
        """From the lower to the higher end."""
        return Range(min(self.low, other.low), max(self.high, other.high))


def grid_of(found: Range) -> Grid:
    """The grid of a range and zero; of a map of zeros any, whose scale is 1."""
    whole = found.with_zero()
    width = whole.high - whole.low
    if not width > _LEAST:
        return Grid(1.0, 0)
    scale = float(np.float32(width / LEVELS))
    return Grid(scale, int(np.clip(np.rint(-whole.low / scale), 0, LEVELS)))


def on_grid(x: NDArray[np.float32], grid: Grid) -> NDArray[np.float32]:
    """x rounded to a grid, as float32: what a map's pair makes of it."""
    q = np.rint(x / np.float32(grid.scale)) + np.float32(grid.zero)
    shifted = np.clip(q, 0, LEVELS) - np.float32(grid.zero)
    rounded: NDArray[np.float32] = shifted * np.float32(grid.scale)
    return rounded


def quantise_weights(
    weight: NDArray[np.float32], axis: int, bias: NDArray[np.float32] | None, input_scale: float
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Weights int8 of their shape, and a scale for each of the output channels along `axis`.

    The scale is the largest weight over 127, or as much more as the channel's bias needs, which is
    int32 in units of ``input_scale * scale``: that of a dead channel, whose weights are all zero,
    is its bias's alone.
    """
    rest = tuple(i for i in range(weight.ndim) if i != axis)
    largest = np.abs(weight.astype(np.float64)).max(axis=rest)
    scale = largest / MOST_WEIGHT
    if bias is not None:
        size = np.abs(bias.astype(np.float64)) / input_scale
        scale = np.maximum(scale, size / np.where(largest > 0, _MOST_BIAS, _FINE_BIAS))
    scale = np.where(scale > _LEAST, scale, 1.0).astype(np.float32)
    shaped = scale.reshape([-1 if i == axis else 1 for i in range(weight.ndim)])
    rounded = np.rint(weight / shaped)
    return np.clip(rounded, -MOST_WEIGHT, MOST_WEIGHT).astype(np.int8), scale


def quantise_bias(
    bias: NDArray[np.float32], input_scale: float, scale: NDArray[np.float32]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """A bias as int32, and its scales, float32: those of the sums that it is added to."""
    unit = np.float32(input_scale) * scale
    rounded = np.rint(bias.astype(np.float64) / unit)
    limits = np.iinfo(np.int32)
    return np.clip(rounded, limits.min, limits.max).astype(np.int32), unit
