"""The image end in numpy: no torch here, runtimes without torch import this."""

import numpy as np
from numpy.typing import NDArray

from deploy.metadata import IMAGENET_MEAN, IMAGENET_STD


def image_end() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Scale and shift (1, 3, 1, 1) that turn 0..255 into ImageNet's normalised values."""
    std, mean = np.array(IMAGENET_STD), np.array(IMAGENET_MEAN)
    shape = (1, 3, 1, 1)
    return (
        (1 / (255 * std)).astype(np.float32).reshape(shape),
        (-mean / std).astype(np.float32).reshape(shape),
    )
