"""The one normalisation of every network: ImageNet's mean and deviation of RGB / 255.

No torch: the exporter puts the same numbers into the deployed graph.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def normalise(
    image: NDArray[np.uint8], mean: Sequence[float] = MEAN, std: Sequence[float] = STD
) -> NDArray[np.float32]:
    """uint8 (H, W, 3) to float32 (3, H, W): x / 255, minus mean, over std, as one multiply-add."""
    scale = np.array([1 / (255 * s) for s in std], np.float32)
    shift = np.array([-m / s for m, s in zip(mean, std, strict=True)], np.float32)
    return np.ascontiguousarray((image * scale + shift).transpose(2, 0, 1), np.float32)
