"""The one normalisation of every network: ImageNet's mean and deviation of RGB / 255.

No torch: the exporter puts the same numbers into the deployed graph.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def normalise(
    images: NDArray[np.uint8], mean: Sequence[float] = MEAN, std: Sequence[float] = STD
) -> NDArray[np.float32]:
    """uint8 RGB (..., 3) to float32 of the same shape: x / 255, minus mean, over std."""
    factor, shift = coefficients(mean, std)
    pixels = images.astype(np.float32)
    pixels *= factor
    pixels -= shift
    return pixels


def coefficients(
    mean: Sequence[float] = MEAN, std: Sequence[float] = STD
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Factor (3,) and shift (3,) of the normalisation x * factor - shift of uint8 RGB."""
    deviation = np.asarray(std, np.float32)
    return np.float32(1) / (255 * deviation), np.asarray(mean, np.float32) / deviation


def planes(
    image: NDArray[np.uint8], mean: Sequence[float] = MEAN, std: Sequence[float] = STD
) -> NDArray[np.float32]:
    """uint8 RGB (H, W, 3) to the normalised float32 (3, H, W) that a network takes."""
    return np.ascontiguousarray(normalise(image, mean, std).transpose(2, 0, 1))
