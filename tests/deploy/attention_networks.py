"""Networks with products of maps, written from their papers' public facts, at any width.

ReLU linear attention of several scales (EfficientViT, arXiv 2205.14756, section 3.2), attention
between pixels at the same place of their patches (MobileViT, arXiv 2110.02178, section 3.1),
attention between channels (Restormer, arXiv 2111.09881, section 3.1) and within windows, with a
bias by relative position (Swin, arXiv 2103.14030, section 3.2).
"""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.deploy.user_networks import InvertedResidual, conv

CLASSES = 7


class LinearAttention(nn.Module):
    """relu(q) (relu(k)^T v) over relu(q) (relu(k)^T 1), of the projection and of a 5x5 window."""

    def __init__(self, channels: int, width: int = 16, *, turned: bool = True) -> None:
        super().__init__()
        self.width, self.turned = width, turned
        total, heads = 3 * channels, channels // width
        self.qkv = nn.Conv2d(channels, total, 1, bias=False)
        self.window = nn.Sequential(
            nn.Conv2d(total, total, 5, padding=2, groups=total, bias=False),
            nn.Conv2d(total, total, 1, groups=3 * heads, bias=False),
        )
        self.out = conv(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, height, width = x.shape
        qkv = self.qkv(x)
        qkv = torch.cat([qkv, self.window(qkv)], dim=1)
        qkv = qkv.reshape(batch, -1, 3 * self.width, height * width)
        if self.turned:  # as channels x pixels
            q, k, v = qkv.split(self.width, dim=2)
            q, k = F.relu(q), F.relu(k)
            v = F.pad(v, (0, 0, 0, 1), value=1.0)
            y = (v @ k.transpose(-1, -2)) @ q
            y = y[:, :, :-1] / (y[:, :, -1:] + 1e-5)
        else:  # as pixels x channels
            qkv = qkv.transpose(-1, -2)
            q, k, v = (qkv[..., i * self.width : (i + 1) * self.width] for i in range(3))
            q, k = F.relu(q), F.relu(k)
            v = F.pad(v, (0, 1), value=1.0)
            y = q @ (k.transpose(-1, -2) @ v)
            y = (y[..., :-1] / (y[..., -1:] + 1e-5)).transpose(-1, -2)
        return x + self.out(y.reshape(batch, -1, height, width))


class PatchTransformer(nn.Module):
    """Windows, then transformer layers between the pixels at one place of all 2x2 patches."""

    def __init__(self, channels: int, width: int, *, layers: int = 2, heads: int = 4) -> None:
        super().__init__()
        self.local = nn.Sequential(
            conv(channels, channels, 3, act=nn.SiLU()), nn.Conv2d(channels, width, 1, bias=False)
        )
        self.layers = nn.ModuleList(_Layer(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.project = conv(width, channels, act=nn.SiLU())
        self.fuse = conv(2 * channels, channels, 3, act=nn.SiLU())

    def forward(self, x: Tensor) -> Tensor:
        y = self.local(x)
        batch, channels, height, width = y.shape
        rows, columns = height // 2, width // 2
        # Patches: (channels, rows, 2, columns, 2) -> (place in the patch, patches, channels).
        y = y.reshape(batch * channels * rows, 2, columns, 2).transpose(1, 2)
        y = y.reshape(batch, channels, rows * columns, 4).transpose(1, 3)
        y = y.reshape(batch * 4, rows * columns, channels)
        for layer in self.layers:
            y = layer(y)
        y = self.norm(y).reshape(batch, 4, rows * columns, channels).transpose(1, 3)
        y = y.reshape(batch * channels * rows, columns, 2, 2).transpose(1, 2)
        y = self.project(y.reshape(batch, channels, height, width))
        return self.fuse(torch.cat((x, y), dim=1))


class _Layer(nn.Module):
    """Attention and an MLP, each behind a norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        scores = q @ k.transpose(-1, -2) * (width // self.heads) ** -0.5
        y = (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, tokens, width)
        x = x + self.out(y)
        return x + self.mlp(self.norm2(x))


class ChannelAttention(nn.Module):
    """softmax(t * q k^T) v of channels, q and k of length one over all pixels."""

    def __init__(self, channels: int, heads: int = 2) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Sequential(
            nn.Conv2d(channels, 3 * channels, 1, bias=False),
            nn.Conv2d(3 * channels, 3 * channels, 3, padding=1, groups=3 * channels, bias=False),
        )
        self.temperature = nn.Parameter(torch.linspace(0.5, 2, heads).reshape(heads, 1, 1))
        self.out = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        shape = batch, self.heads, channels // self.heads, height * width
        q, k, v = (part.reshape(shape) for part in self.qkv(x).chunk(3, dim=1))
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        weights = (q @ k.transpose(-2, -1) * self.temperature).softmax(-1)
        return x + self.out((weights @ v).reshape(x.shape))


class WindowAttention(nn.Module):
    """Attention within windows, with a bias for each pair of places."""

    def __init__(self, channels: int, heads: int = 2, window: int = 4) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.norm = nn.LayerNorm(channels)
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.bias = nn.Parameter(torch.randn(heads, window**2, window**2))

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        side, heads = self.window, self.heads
        rows, columns = height // side, width // side
        y = self.norm(x.permute(0, 2, 3, 1)).reshape(batch, rows, side, columns, side, channels)
        y = y.permute(0, 1, 3, 2, 4, 5).reshape(-1, side * side, channels)
        qkv = self.qkv(y).reshape(-1, side * side, 3, heads, channels // heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        scores = (q * (channels // heads) ** -0.5) @ k.transpose(-2, -1) + self.bias
        y = (scores.softmax(-1) @ v).transpose(1, 2).reshape(-1, side * side, channels)
        y = self.out(y).reshape(batch, rows, columns, side, side, channels)
        y = y.permute(0, 1, 3, 2, 4, 5).reshape(batch, height, width, channels)
        return x + y.permute(0, 3, 1, 2)


def _network(widths: tuple[int, ...], block: Callable[[int], nn.Module]) -> nn.Module:
    """A convolution at 1/2, an inverted residual and a block at each further half, class scores."""
    layers: list[nn.Module] = [conv(3, widths[0], 3, stride=2, act=nn.ReLU6())]
    for number, (cin, cout) in enumerate(pairwise(widths)):
        layers.append(InvertedResidual(cin, cout, stride=2))
        if number:
            layers.append(block(cout))
    scale = 2 ** len(widths)
    return nn.Sequential(
        *layers, nn.Conv2d(widths[-1], CLASSES, 1),
        nn.Upsample(scale_factor=scale, mode="bilinear", align_corners=False),
    )  # fmt: skip


def efficientvit(widths: tuple[int, ...] = (8, 16, 32, 32), *, turned: bool = True) -> nn.Module:
    """Stages of ReLU linear attention and a block behind each."""
    return _network(
        widths,
        lambda cout: nn.Sequential(
            LinearAttention(cout, turned=turned), InvertedResidual(cout, cout)
        ),
    )


def mobilevit(widths: tuple[int, ...] = (8, 16, 32, 32)) -> nn.Module:
    """Stages of transformers between patches, a half wider than their maps."""
    return _network(widths, lambda cout: PatchTransformer(cout, cout * 3 // 2))


def restormer(widths: tuple[int, ...] = (8, 16, 32, 32)) -> nn.Module:
    """Stages of attention between channels."""
    return _network(widths, ChannelAttention)


def swin(widths: tuple[int, ...] = (8, 16, 32, 32)) -> nn.Module:
    """Stages of attention within windows."""
    return _network(widths, WindowAttention)


def save(network: nn.Module, path: Path, size: tuple[int, int], *, dynamo: bool = False) -> None:
    """As a user exports it, by torch's exporter (opset 20) or by the one that traces (17)."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
    torch.onnx.export(
        network.eval(), (torch.rand(1, 3, *size),), path, opset_version=20 if dynamo else 17,
        dynamo=dynamo, input_names=["image"], verbose=False,
    )  # fmt: skip
