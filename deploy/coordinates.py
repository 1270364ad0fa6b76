"""Where the elements of a resized axis lie on the old one: as onnxruntime computes it, in float32.

A coordinate of 1000 has a rounding error of 3e-5, which is a weight's: three evaluations of one
network that do not share it would differ by more than all their sums.
"""

import numpy as np
from numpy.typing import NDArray

Coordinates = NDArray[np.float32]
_ONE, _HALF = np.float32(1), np.float32(0.5)


def half_pixel(size: int, out: int) -> Coordinates:
    """Of `out` elements, whose centres are spread over `size`."""
    return coordinates("half_pixel", size, out, np.float32(out) / np.float32(size))


def coordinates(
    mode: str, size: int, out: int, scale: np.float32, start: np.float32 = _ONE * 0,
    end: np.float32 = _ONE,
) -> Coordinates:  # fmt: skip
    """By one of ONNX's coordinate transformations; `start` and `end` are of tf_crop_and_resize."""
    at = np.arange(out, dtype=np.float32)
    length, wanted = np.float32(size), np.float32(out)
    if mode == "asymmetric":
        return at / scale
    if mode == "align_corners":
        return at * (length - _ONE) / (wanted - _ONE) if out > 1 else at * 0
    if mode == "tf_crop_and_resize":
        if out > 1:
            along = at * (end - start) * (length - _ONE) / (wanted - _ONE)
            return start * (length - _ONE) + along
        return _HALF * (start + end) * (length - _ONE) + at
    if mode == "pytorch_half_pixel" and out == 1:
        return at * 0
    centres: Coordinates = (at + _HALF) / scale - _HALF
    if mode == "half_pixel_symmetric":
        adjustment = wanted / (scale * length)
        centres += length / np.float32(2) * (_ONE - adjustment)
    return centres
