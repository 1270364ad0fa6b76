"""Lite0 for tests: tensors as the package's file calls them, and the published network itself, in
float64 and from the tensors alone."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from hmseg.data.normalise import planes

STRIDES = {1: 2, 3: 2, 5: 2, 11: 2}  # by the block's number; Tan and Le's table with 32 as the last


def random_tensors() -> dict[str, Tensor]:
    """What the package's file holds, with other numbers."""
    generator = torch.Generator().manual_seed(4)
    tensors: dict[str, Tensor] = {}

    def add(conv: str, norm: str, *shape: int) -> None:
        fan_in = shape[1] * shape[2] * shape[3]
        tensors[f"{conv}.weight"] = torch.randn(shape, generator=generator) * (2 / fan_in) ** 0.5
        for name, low, high in (
            ("weight", 0.3, 1.0), ("bias", -0.5, 0.5), ("running_mean", -0.3, 0.3),
            ("running_var", 0.3, 1.5),
        ):  # fmt: skip
            value = torch.rand(shape[0], generator=generator) * (high - low) + low
            tensors[f"{norm}.{name}"] = value
        tensors[f"{norm}.num_batches_tracked"] = torch.tensor(7)

    add("_conv_stem", "_bn0", 32, 3, 3, 3)
    widths = [16, *[24] * 2, *[40] * 2, *[80] * 3, *[112] * 3, *[192] * 4, 320]
    kernels = [3, 3, 3, 5, 5, 3, 3, 3, 5, 5, 5, 5, 5, 5, 5, 3]
    cin = 32
    for index, (cout, kernel) in enumerate(zip(widths, kernels, strict=True)):
        at = f"_blocks.{index}."
        hidden = cin if index == 0 else 6 * cin
        if index:
            add(f"{at}_expand_conv", f"{at}_bn0", hidden, cin, 1, 1)
        add(f"{at}_depthwise_conv", f"{at}_bn1", hidden, 1, kernel, kernel)
        add(f"{at}_project_conv", f"{at}_bn2", cout, hidden, 1, 1)
        cin = cout
    return tensors


def reference(tensors: dict[str, Tensor], pixels: np.ndarray) -> Tensor:
    """The published network from the tensors alone: pixels (H, W, 3), float64, epsilon 1e-3, its
    own normalisation; symmetric paddings, and beyond the border the colour that ours has there."""
    t = {name: tensor.double() for name, tensor in tensors.items() if tensor.dim()}

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var = t[f"{name}.running_mean"], t[f"{name}.running_var"]
        return F.batch_norm(x, mean, var, t[f"{name}.weight"], t[f"{name}.bias"], eps=1e-3)

    image = torch.from_numpy((pixels.astype(np.float64) - 127) / 128).permute(2, 0, 1)[None]
    beyond = (torch.tensor([0.485, 0.456, 0.406]).double() * 255 - 127) / 128
    channels = [F.pad(image[:, c : c + 1], (1,) * 4, value=float(beyond[c])) for c in range(3)]
    x = F.conv2d(torch.cat(channels, 1), t["_conv_stem.weight"], stride=2)
    x = norm(x, "_bn0").clamp(0, 6)
    for index in range(16):
        at, y = f"_blocks.{index}.", x
        if f"{at}_expand_conv.weight" in t:
            y = norm(F.conv2d(y, t[f"{at}_expand_conv.weight"]), f"{at}_bn0").clamp(0, 6)
        weight = t[f"{at}_depthwise_conv.weight"]
        padding = weight.shape[-1] // 2
        y = F.conv2d(y, weight, None, STRIDES.get(index, 1), padding, groups=len(weight))
        y = norm(y, f"{at}_bn1").clamp(0, 6)
        y = norm(F.conv2d(y, t[f"{at}_project_conv.weight"]), f"{at}_bn2")
        x = x + y if x.shape == y.shape else y
    return x


def tensorflows(tensors: dict[str, Tensor], pixels: np.ndarray, last: int) -> Tensor:
    """The same with TensorFlow's paddings, which the weights were trained with: of the rows and
    columns that are added at a stride of 2 the odd one comes last."""
    t = {name: tensor.double() for name, tensor in tensors.items() if tensor.dim()}

    def conv(x: Tensor, name: str, stride: int, norm: str, act: bool) -> Tensor:
        weight = t[f"{name}.weight"]
        lack = max(0, weight.shape[-1] - stride)  # of an even size
        x = F.pad(x, (lack // 2, lack - lack // 2) * 2)
        x = F.conv2d(x, weight, None, stride, groups=x.shape[1] // weight.shape[1])
        mean, var = t[f"{norm}.running_mean"], t[f"{norm}.running_var"]
        x = F.batch_norm(x, mean, var, t[f"{norm}.weight"], t[f"{norm}.bias"], eps=1e-3)
        return x.clamp(0, 6) if act else x

    x = torch.from_numpy((pixels.astype(np.float64) - 127) / 128).permute(2, 0, 1)[None]
    x = conv(x, "_conv_stem", 2, "_bn0", True)
    for index in range(last + 1):
        at, y = f"_blocks.{index}.", x
        if index:
            y = conv(y, f"{at}_expand_conv", 1, f"{at}_bn0", True)
        y = conv(y, f"{at}_depthwise_conv", STRIDES.get(index, 1), f"{at}_bn1", True)
        y = conv(y, f"{at}_project_conv", 1, f"{at}_bn2", False)
        x = x + y if x.shape == y.shape else y
    return x


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, (height, width, 3), np.uint8)


def ours(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(planes(pixels))[None]
