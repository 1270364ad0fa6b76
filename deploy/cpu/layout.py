"""Blocked layouts: activations (N, C/c, H, W, c), weights to match, in numpy.

Channels are padded with zeros to a multiple of c, the lanes of the instruction set.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.cpu.isa import Isa

Array = NDArray[np.float32]


def activation_shape(isa: Isa, channels: int, height: int, width: int) -> tuple[int, ...]:
    """(1, C/c, H, W, c)."""
    return (1, isa.blocks(channels), height, width, isa.lanes)


def pack_activation(isa: Isa, x: Array) -> Array:
    """(N, C, H, W) -> (N, C/c, H, W, c)."""
    n, channels, height, width = x.shape
    padded = _pad(x, 1, isa.blocks(channels) * isa.lanes)
    blocked = padded.reshape(n, -1, isa.lanes, height, width)
    return np.ascontiguousarray(blocked.transpose(0, 1, 3, 4, 2))


def pack_vector(isa: Isa, v: Array) -> Array:
    """(C,) -> (C/c, c): biases and per-channel factors."""
    return np.ascontiguousarray(_pad(v, 0, isa.blocks(len(v)) * isa.lanes).reshape(-1, isa.lanes))


def pack_pointwise(isa: Isa, w: Array) -> NDArray[Any]:
    """(O, I) or (O, I, 1, 1) -> (O/c, I/g, c * g), as `Element.pack_weights` has it; of float32
    (O/c, I, c), I not padded."""
    out, inner = w.shape[:2]
    padded = _pad(w.reshape(out, inner), 0, isa.blocks(out) * isa.lanes)
    blocked = padded.reshape(-1, isa.lanes, inner)
    return isa.element.pack_weights(blocked.transpose(0, 2, 1))


def pack_depthwise(isa: Isa, w: Array) -> Array:
    """(C, 1, k, k) -> (C/c, k*k, c)."""
    channels, _, k, _ = w.shape
    padded = _pad(w.reshape(channels, k * k), 0, isa.blocks(channels) * isa.lanes)
    return np.ascontiguousarray(padded.reshape(-1, isa.lanes, k * k).transpose(0, 2, 1))


def pack_normalisation(
    isa: Isa,
    scale: float = 1 / 255,
    mean: Sequence[float] | NDArray[np.float64] = (0.0, 0.0, 0.0),
    std: Sequence[float] | NDArray[np.float64] = (1.0, 1.0, 1.0),
) -> Array:
    """Factors and shifts (2, 3, c), which repeat with the channels over three vectors of
    interleaved pixels: (v * scale - mean) / std = v * factor + shift."""
    channel = np.arange(3 * isa.lanes) % 3
    factor = (scale / np.asarray(std))[channel]
    shift = (-np.asarray(mean) / np.asarray(std))[channel]
    return np.stack([factor, shift]).reshape(2, 3, isa.lanes).astype(np.float32)


def _pad(x: Array, axis: int, size: int) -> Array:
    width = [(0, 0)] * x.ndim
    width[axis] = (0, size - x.shape[axis])
    return np.pad(np.asarray(x, np.float32), width)
