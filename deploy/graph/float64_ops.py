"""Operators in double precision, one function each: attributes and inputs to the one output.

Written from ONNX's specification, with torch and numpy where `onnx.reference` would take minutes.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from torch.nn import functional as F

from deploy.graph.float64_resize import Array, Attributes, NoTruthError, resize

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """The attributes of a node as Python's values; texts are bytes."""
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def _torch(array: Array) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def _pads(a: Attributes, sizes: Sequence[int], reach: Sequence[int]) -> list[tuple[int, int]]:
    """Before and after each axis; `reach` is how many pixels a window spans."""
    count = len(sizes)
    kind = a.get("auto_pad", b"NOTSET").decode()
    if kind in ("SAME_UPPER", "SAME_LOWER"):
        strides = a.get("strides", [1] * count)
        whole = [
            max(0, (-(-n // s) - 1) * s + r - n)
            for n, s, r in zip(sizes, strides, reach, strict=True)
        ]
        low = [w // 2 if kind == "SAME_UPPER" else w - w // 2 for w in whole]
        return [(first, w - first) for first, w in zip(low, whole, strict=True)]
    pads = [0] * (2 * count) if kind == "VALID" else a.get("pads", [0] * (2 * count))
    return list(zip(pads[:count], pads[count:], strict=True))


def _padded(x: Array, pads: Sequence[tuple[int, int]], value: float = 0.0) -> Array:
    return np.pad(x, [(0, 0), (0, 0), *pads], constant_values=value)


def _reach(kernel: Sequence[int], dilations: Sequence[int]) -> list[int]:
    return [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]


def _conv(a: Attributes, x: Array, weight: Array, bias: Array | None = None) -> Array:
    rank = x.ndim - 2
    dilations = a.get("dilations", [1] * rank)
    x = _padded(x, _pads(a, x.shape[2:], _reach(weight.shape[2:], dilations)))
    strides, groups = a.get("strides", [1] * rank), a.get("group", 1)
    if groups == x.shape[1] == len(weight) and rank == 2:  # torch takes minutes
        return _depthwise(x, weight, bias, strides, dilations)
    convolve = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[rank]
    added = None if bias is None else _torch(bias)
    out: Array = convolve(_torch(x), _torch(weight), added, strides, 0, dilations, groups).numpy()
    return out


def _depthwise(
    x: Array, weight: Array, bias: Array | None, strides: Sequence[int], dilations: Sequence[int]
) -> Array:
    """One filter a channel, without padding: a sum over its taps."""
    reach = _reach(weight.shape[2:], dilations)
    height, width = ((n - r) // s + 1 for n, r, s in zip(x.shape[2:], reach, strides, strict=True))
    out = np.zeros((*x.shape[:2], height, width))
    for row, column in np.ndindex(weight.shape[2:]):
        top, left = row * dilations[0], column * dilations[1]
        rows = slice(top, top + (height - 1) * strides[0] + 1, strides[0])
        columns = slice(left, left + (width - 1) * strides[1] + 1, strides[1])
        out += x[:, :, rows, columns] * weight[:, 0, row, column].reshape(-1, 1, 1)
    return out if bias is None else out + bias.reshape(-1, 1, 1)


def _conv_transpose(a: Attributes, x: Array, weight: Array, bias: Array | None = None) -> Array:
    if x.ndim != 4 or "output_shape" in a or a.get("auto_pad", b"NOTSET") != b"NOTSET":
        raise NoTruthError("ConvTranspose of an output shape is not evaluated in double")
    pads, extra = a.get("pads", [0] * 4), a.get("output_padding", [0, 0])
    whole = F.conv_transpose2d(
        _torch(x), _torch(weight), None, a.get("strides", [1, 1]), 0, 0, a.get("group", 1),
        a.get("dilations", [1, 1]),
    )  # fmt: skip
    # Cut as ONNX says: `pads` off either side, `output_padding` more at the far ones.
    whole = F.pad(whole, [0, extra[1], 0, extra[0]])
    height, width = whole.shape[2:]
    cut: Array = whole[:, :, pads[0] : height - pads[2], pads[1] : width - pads[3]].numpy()
    return cut if bias is None else cut + bias.reshape(-1, 1, 1)


def _windows(a: Attributes, x: Array, value: float) -> tuple[Array, list[tuple[int, int]], Any]:
    """x padded so that plain windows, without a rest, are ONNX's; the pads that count; strides."""
    rank = x.ndim - 2
    if rank != 2:
        raise NoTruthError("pools of images alone are evaluated in double")
    kernel, strides = a["kernel_shape"], a.get("strides", [1] * rank)
    reach = _reach(kernel, a.get("dilations", [1] * rank))
    pads, more = _pads(a, x.shape[2:], reach), []
    for n, (low, high), r, s in zip(x.shape[2:], pads, reach, strides, strict=True):
        span = n + low + high - r
        steps = span // s
        if a.get("ceil_mode", 0) and -(-span // s) * s < n + low:  # no window starts in the pad
            steps = -(-span // s)
        more.append((low, high + max(0, steps * s - span)))
    return _padded(x, more, value), pads, strides


def _max_pool(a: Attributes, x: Array) -> Array:
    padded, _, strides = _windows(a, x, -np.inf)
    dilations = a.get("dilations", [1, 1])
    out: Array = F.max_pool2d(_torch(padded), a["kernel_shape"], strides, 0, dilations).numpy()
    return out


def _average_pool(a: Attributes, x: Array) -> Array:
    if any(d != 1 for d in a.get("dilations", [1, 1])):
        raise NoTruthError("a dilated AveragePool is not evaluated in double")
    padded, pads, strides = _windows(a, x, 0.0)
    ones = np.ones((1, 1, *x.shape[2:]))
    if a.get("count_include_pad", 0):
        ones = _padded(ones, pads, 1.0)
        short = [big - small for big, small in zip(padded.shape[2:], ones.shape[2:], strict=True)]
        ones = _padded(ones, [(0, s) for s in short])
    else:
        ones = _windows(a, ones, 0.0)[0]
    total, count = (
        F.avg_pool2d(_torch(v), a["kernel_shape"], strides, divisor_override=1).numpy()
        for v in (padded, ones)
    )
    out: Array = total / count
    return out


def _along(values: Array, x: Array, axis: int) -> Array:
    """Per-axis parameters (C,) in a shape that goes with x; a scalar stays one."""
    if values.size == 1:
        return values.reshape(())
    shape = [1] * x.ndim
    shape[axis] = -1
    return values.reshape(shape)


def _quantise(a: Attributes, x: Array, scale: Array, zero: Array | None = None) -> Array:
    zero = np.zeros((), np.uint8) if zero is None else zero
    axis, limits = a.get("axis", 1), np.iinfo(zero.dtype)
    rounded = np.rint(x / _along(scale, x, axis)) + _along(zero, x, axis)
    clipped: Array = np.clip(rounded, limits.min, limits.max).astype(zero.dtype)
    return clipped


def _dequantise(a: Attributes, x: Array, scale: Array, zero: Array | None = None) -> Array:
    axis, whole = a.get("axis", 1), x.astype(np.float64)
    if zero is not None:
        whole -= _along(zero, x, axis)
    scaled: Array = whole * _along(scale, x, axis)
    return scaled


def _batch_norm(
    a: Attributes, x: Array, scale: Array, bias: Array, mean: Array, variance: Array
) -> Array:
    factor = scale / np.sqrt(variance + a.get("epsilon", 1e-5))
    shift = bias - mean * factor
    out: Array = x * _along(factor, x, 1) + _along(shift, x, 1)
    return out


def _layer_norm(a: Attributes, x: Array, scale: Array, bias: Array | None = None) -> Array:
    axes = tuple(range(a.get("axis", -1) % x.ndim, x.ndim))
    centred = x - x.mean(axes, keepdims=True)
    deviation = np.sqrt((centred**2).mean(axes, keepdims=True) + a.get("epsilon", 1e-5))
    out: Array = centred / deviation * scale + (0 if bias is None else bias)
    return out


def _group_norm(a: Attributes, x: Array, scale: Array, bias: Array) -> Array:
    # Opset 18 has one scale a group, 21 one a channel.
    groups = x.reshape(x.shape[0], a["num_groups"], -1)
    centred = groups - groups.mean(-1, keepdims=True)
    deviation = np.sqrt((centred**2).mean(-1, keepdims=True) + a.get("epsilon", 1e-5))
    per = x.shape[1] // scale.size
    scale, bias = (_along(v.repeat(per), x, 1) for v in (scale, bias))
    out: Array = (centred / deviation).reshape(x.shape) * scale + bias
    return out


def _mean_variance_norm(a: Attributes, x: Array) -> Array:
    axes = tuple(a.get("axes", (0, 2, 3)))
    centred = x - x.mean(axes, keepdims=True)
    out: Array = centred / (np.sqrt((centred**2).mean(axes, keepdims=True)) + 1e-9)
    return out


def _cast(a: Attributes, x: Array) -> Array:
    kind = a["to"]
    return x.astype(np.float64 if kind in _FLOATS else helper.tensor_dtype_to_np_dtype(kind))


def _erf(x: Array) -> Array:
    out: Array = torch.special.erf(_torch(x)).numpy()
    return out


def _gelu(a: Attributes, x: Array) -> Array:
    if a.get("approximate", b"none") == b"tanh":
        inner = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    else:
        inner = _erf(x / math.sqrt(2))
    out: Array = 0.5 * x * (1 + inner)
    return out


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def _hard_sigmoid(x: Array, alpha: float, beta: float) -> Array:
    return np.clip(alpha * x + beta, 0, 1)


def _softplus(x: Array) -> Array:
    return np.logaddexp(x, 0)


Operator = Callable[..., Array]
OPERATORS: dict[str, Operator] = {
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "DequantizeLinear": _dequantise,
    "Erf": lambda a, x: _erf(x),
    "Gelu": _gelu,
    "GroupNormalization": _group_norm,
    "HardSigmoid": lambda a, x: _hard_sigmoid(x, a.get("alpha", 0.2), a.get("beta", 0.5)),
    "HardSwish": lambda a, x: x * _hard_sigmoid(x, 1 / 6, 0.5),
    "LayerNormalization": _layer_norm,
    "MaxPool": _max_pool,
    "MeanVarianceNormalization": _mean_variance_norm,
    "Mish": lambda a, x: x * np.tanh(_softplus(x)),
    "QuantizeLinear": _quantise,
    "Resize": resize,
    "Sigmoid": lambda a, x: _sigmoid(x),
    "Softplus": lambda a, x: _softplus(x),
}
