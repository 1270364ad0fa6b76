"""SeaFormer (Wan et al., "SeaFormer: squeeze-enhanced axial transformer for mobile semantic
segmentation", ICLR 2023).

TopFormer's stem; at 1/32 and 1/64 transformer blocks whose attention is along the rows' means and
along the columns' means, gating a convolution of the same queries, keys and values. The map at 1/8
is gated by both. Scores at 1/8 of the image's size.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hmseg.families.blocks import ConvBN, resize, size_of
from hmseg.families.topformer import Row, token_mlp, token_stages

_KEYS = (16, 24)  # channels of a head's keys, at 1/32 and 1/64
_RATIOS = (2, 4)  # of the MLPs there
_POSITIONS = 16  # entries of a table of positions


@dataclass(frozen=True)
class Config:
    """The stages (1/4 to 1/64), blocks and heads at the last two, and the head's two widths."""

    stages: tuple[tuple[Row, ...], ...]
    blocks: int
    heads: int
    widths: tuple[int, int]


TINY = Config(
    (
        ((3, 1, 16, 1), (3, 4, 16, 2), (3, 3, 16, 1)),
        ((5, 3, 32, 2), (5, 3, 32, 1)),
        ((3, 3, 64, 2), (3, 3, 64, 1)),
        ((5, 3, 128, 2),),
        ((3, 6, 160, 2),),
    ),
    blocks=2,
    heads=4,
    widths=(64, 96),
)
SMALL = Config(
    (
        ((3, 1, 16, 1), (3, 4, 24, 2), (3, 3, 24, 1)),
        ((5, 3, 48, 2), (5, 3, 48, 1)),
        ((3, 3, 96, 2), (3, 3, 96, 1)),
        ((5, 4, 160, 2),),
        ((3, 6, 192, 2),),
    ),
    blocks=3,
    heads=6,
    widths=(96, 128),
)
BASE = Config(
    (
        ((3, 1, 16, 1), (3, 4, 32, 2), (3, 3, 32, 1)),
        ((5, 3, 64, 2), (5, 3, 64, 1)),
        ((3, 3, 128, 2), (3, 3, 128, 1)),
        ((5, 4, 192, 2),),
        ((3, 6, 256, 2),),
    ),
    blocks=4,
    heads=8,
    widths=(128, 160),
)


class _Positions(nn.Module):
    """A learnt value for each channel and place, resized to the axis: (N, C, L) -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(1, channels, _POSITIONS))

    def forward(self, x: Tensor) -> Tensor:
        return x + F.interpolate(self.table, int(x.shape[-1]), mode="linear", align_corners=False)


class _AxisAttention(nn.Module):
    """Attention between the means of the rows, or of the columns."""

    def __init__(self, heads: int, key: int, value: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = key**-0.5
        self.query_positions = _Positions(heads * key)
        self.key_positions = _Positions(heads * key)
        self.project = nn.Sequential(nn.ReLU6(), ConvBN(heads * value, heads * value, act=None))

    def forward(self, q: Tensor, k: Tensor, v: Tensor, axis: int) -> Tensor:
        """(N, C, H, W) each, averaged over the axis: (N, C, H, 1) for 3, (N, C, 1, W) for 2."""
        q, k, v = self.query_positions(q.mean(axis)), self.key_positions(k.mean(axis)), v.mean(axis)
        batch, channels, length = v.shape
        split = batch, self.heads, -1, length
        q, k, v = q.reshape(split), k.reshape(split), v.reshape(split)
        weights = torch.softmax(q.transpose(2, 3) @ k * self.scale, dim=-1)
        mixed = (weights @ v.transpose(2, 3)).transpose(2, 3).reshape(batch, channels, length)
        y: Tensor = self.project(mixed.unsqueeze(axis))
        return y


class _Attention(nn.Module):
    """Squeeze-enhanced axial attention: what the axes say gates what a convolution says."""

    def __init__(self, channels: int, heads: int, key: int) -> None:
        super().__init__()
        value = 2 * key
        keys, values = heads * key, heads * value
        self.query = ConvBN(channels, keys, act=None)
        self.key = ConvBN(channels, keys, act=None)
        self.value = ConvBN(channels, values, act=None)
        total = 2 * keys + values
        self.detail = nn.Sequential(
            ConvBN(total, total, 3, groups=total, act=nn.ReLU6), ConvBN(total, channels, act=None)
        )
        self.rows = _AxisAttention(heads, key, value)
        self.columns = _AxisAttention(heads, key, value)
        self.project = nn.Sequential(
            nn.ReLU6(), ConvBN(values, channels, act=None), nn.Hardsigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.query(x), self.key(x), self.value(x)
        gate = self.project(v + self.rows(q, k, v, 3) + self.columns(q, k, v, 2))
        y: Tensor = gate * self.detail(torch.cat([q, k, v], dim=1))
        return y


class _Block(nn.Module):
    def __init__(self, channels: int, heads: int, key: int, ratio: int) -> None:
        super().__init__()
        self.attention = _Attention(channels, heads, key)
        self.mlp = token_mlp(channels, ratio)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x)
        x = x + self.mlp(x)
        return x


class _Fusion(nn.Module):
    """A map, gated by one of lower resolution."""

    def __init__(self, local: int, context: int, width: int) -> None:
        super().__init__()
        self.local = ConvBN(local, width, act=None)
        self.gate = ConvBN(context, width, act=nn.Hardsigmoid)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        y: Tensor = self.local(x) * resize(self.gate(context), size_of(x))
        return y


class SeaFormer(nn.Module):
    """Images (N, 3, H, W), sides multiples of 64, to scores (N, num_classes, H/8, W/8)."""

    def __init__(self, num_classes: int, config: Config) -> None:
        super().__init__()
        _, eighth, _, low, lowest = (stage[-1][2] for stage in config.stages)
        self.stem = ConvBN(3, 16, 3, stride=2)
        self.stages = token_stages(config.stages)
        for stage, channels, key, ratio in zip(
            self.stages[-2:], (low, lowest), _KEYS, _RATIOS, strict=True
        ):
            assert isinstance(stage, nn.Sequential)
            stage.extend(_Block(channels, config.heads, key, ratio) for _ in range(config.blocks))
        first, second = config.widths
        self.fuse_low = _Fusion(eighth, low, first)
        self.fuse_lowest = _Fusion(first, lowest, second)
        self.classify = nn.Sequential(
            ConvBN(second, second, groups=second),  # depthwise though 1x1: a scale and a shift
            nn.Dropout2d(0.1),
            nn.Conv2d(second, num_classes, 1),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Scores at 1/8 of the image's size."""
        x, maps = self.stem(image), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        _, eighth, _, low, lowest = maps
        scores: Tensor = self.classify(self.fuse_lowest(self.fuse_low(eighth, low), lowest))
        return scores


NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "seaformer-t": partial(SeaFormer, config=TINY),
    "seaformer-s": partial(SeaFormer, config=SMALL),
    "seaformer-b": partial(SeaFormer, config=BASE),
}
