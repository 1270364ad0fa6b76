"""ONNX's Resize in double precision, by one matrix for each axis; its coordinates are float32's
(`deploy.coordinates`): they belong to what a file means, not to the noise of computing it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.coordinates import coordinates
from lut.errors import WorkError

Array = NDArray[Any]
Attributes = Mapping[str, Any]
Part = Sequence[float]  # where a region begins and ends, of an axis as 1


class NoTruthError(WorkError):
    """The graph cannot be evaluated in double, and why."""


def _resampling(a: Attributes, size: int, source: Array) -> Array:
    """(out, size): what each sample, `source` pixels behind the first, takes of each pixel of one
    axis."""
    out, mode = len(source), a.get("mode", b"nearest").decode()
    matrix, row = np.zeros((out, size)), np.arange(out)
    if mode == "nearest":
        rounding = a.get("nearest_mode", b"round_prefer_floor").decode()
        nearest = {
            "round_prefer_floor": np.ceil(source - 0.5),
            "round_prefer_ceil": np.floor(source + 0.5),
            "floor": np.floor(source),
            "ceil": np.ceil(source),
        }[rounding]
        taps = [(nearest, np.ones(out))]
    elif mode == "linear":
        low = np.floor(source)
        taps = [(low, 1 - (source - low)), (low + 1, source - low)]
    else:
        low, c = np.floor(source), a.get("cubic_coeff_a", -0.75)
        taps = []
        for offset in (-1, 0, 1, 2):
            t = np.abs(source - low - offset)
            near = ((c + 2) * t - (c + 3)) * t * t + 1
            far = ((c * t - 5 * c) * t + 8 * c) * t - 4 * c
            taps.append((low + offset, np.where(t <= 1, near, far)))
    for index, weight in taps:
        np.add.at(matrix, (row, np.clip(index, 0, size - 1).astype(int)), weight)
    return matrix


def resize(
    a: Attributes, x: Array, roi: Array | None = None, scales: Array | None = None,
    sizes: Array | None = None,
) -> Array:  # fmt: skip
    """ONNX's Resize, axis by axis: nearest, linear and cubic, without antialias."""
    if a.get("antialias", 0) or a.get("exclude_outside", 0):
        raise NoTruthError("Resize with antialias or exclude_outside is not evaluated in double")
    if a.get("keep_aspect_ratio_policy", b"stretch") != b"stretch":
        raise NoTruthError("Resize that keeps the aspect ratio is not evaluated in double")
    axes = a.get("axes", range(x.ndim))
    given = sizes if sizes is not None and sizes.size else scales
    assert given is not None
    kind = a.get("coordinate_transformation_mode", b"half_pixel").decode()
    cropped = kind == "tf_crop_and_resize"
    parts: Sequence[Part] = [(0.0, 1.0)] * len(axes)
    if cropped:
        if roi is None or roi.size != 2 * len(axes) or given is not sizes:
            raise NoTruthError("Resize of a region by scales is not evaluated in double")
        parts = roi.reshape(2, -1).T.tolist()
    for axis, value, part in zip(axes, given.tolist(), parts, strict=True):
        size = x.shape[axis]
        out = int(value) if given is sizes else math.floor(size * value)
        scale = np.float32(out) / np.float32(size) if given is sizes else np.float32(value)
        if out == size and scale == 1 and tuple(part) == (0, 1):
            continue
        source = coordinates(kind, size, out, scale, *map(np.float32, part)).astype(np.float64)
        x = np.moveaxis(np.tensordot(_resampling(a, size, source), x, (1, axis)), 0, axis)
        if cropped:
            beyond = (source < 0) | (source > size - 1)
            np.moveaxis(x, axis, 0)[beyond] = a.get("extrapolation_value", 0.0)
    return x
