"""SegFormer-B0 (Xie et al., "SegFormer: simple and efficient design for semantic segmentation with
transformers", NeurIPS 2021).

Four stages of transformer blocks, whose keys and values are reduced by strided convolutions; the
head maps each stage to one width and joins them. Scores at 1/4 of the image's size.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hmseg.families.blocks import ConvBN, resize, size_of

_EPS = 1e-6


class Stage(NamedTuple):
    """Of a mix transformer: its embedding (kernel, stride), and how its blocks attend."""

    channels: int
    kernel: int
    stride: int
    heads: int
    reduction: int  # the keys' and values' stride
    blocks: int = 2


B0 = (
    Stage(32, 7, 4, heads=1, reduction=8),
    Stage(64, 3, 2, heads=2, reduction=4),
    Stage(160, 3, 2, heads=5, reduction=2),
    Stage(256, 3, 2, heads=8, reduction=1),
)
_HEAD_WIDTH = 256


def _tokens(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, H W, C)."""
    return x.flatten(2).transpose(1, 2)


def _map(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, H W, C) -> (N, C, H, W)."""
    return tokens.transpose(1, 2).reshape(tokens.shape[0], tokens.shape[2], *size)


class _Attention(nn.Module):
    """Multi-head attention; the keys and values stand for windows of `reduction` pixels squared."""

    def __init__(self, channels: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(channels, 2 * channels)
        self.project = nn.Linear(channels, channels)
        self.reduction = reduction
        if reduction > 1:
            self.reduce = nn.Conv2d(channels, channels, reduction, stride=reduction)
            self.norm = nn.LayerNorm(channels, _EPS)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        batch, length, channels = x.shape
        width = channels // self.heads
        reduced = self.norm(_tokens(self.reduce(_map(x, size)))) if self.reduction > 1 else x
        q = self.query(x).reshape(batch, length, self.heads, width).transpose(1, 2)
        kv = self.key_value(reduced).reshape(batch, -1, 2, self.heads, width).permute(2, 0, 3, 1, 4)
        k, v = kv[0], kv[1]
        weights = torch.softmax(q @ k.transpose(-2, -1) * width**-0.5, dim=-1)
        y: Tensor = self.project((weights @ v).transpose(1, 2).reshape(batch, length, channels))
        return y


class _MixMLP(nn.Module):
    """An MLP with a depthwise 3x3, which tells the tokens where they are."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels * 4
        self.expand = nn.Linear(channels, hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.project = nn.Linear(hidden, channels)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        hidden = _tokens(self.depthwise(_map(self.expand(x), size)))
        y: Tensor = self.project(F.gelu(hidden))
        return y


class _Block(nn.Module):
    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(stage.channels, _EPS)
        self.attention = _Attention(stage.channels, stage.heads, stage.reduction)
        self.norm2 = nn.LayerNorm(stage.channels, _EPS)
        self.mlp = _MixMLP(stage.channels)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        x = x + self.attention(self.norm1(x), size)
        x = x + self.mlp(self.norm2(x), size)
        return x


class _Stage(nn.Module):
    """Overlapping patches as tokens, blocks, and the tokens as a map again."""

    def __init__(self, cin: int, stage: Stage) -> None:
        super().__init__()
        c, k, s = stage.channels, stage.kernel, stage.stride
        self.embed = nn.Conv2d(cin, c, k, s, k // 2)
        self.embed_norm = nn.LayerNorm(c, _EPS)
        self.blocks = nn.ModuleList(_Block(stage) for _ in range(stage.blocks))
        self.norm = nn.LayerNorm(c, _EPS)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        size = size_of(x)
        tokens = self.embed_norm(_tokens(x))
        for block in self.blocks:
            tokens = block(tokens, size)
        return _map(self.norm(tokens), size)


class SegFormer(nn.Module):
    """Images (N, 3, H, W) to scores (N, num_classes, H/4, W/4)."""

    def __init__(self, num_classes: int, stages: tuple[Stage, ...] = B0) -> None:
        super().__init__()
        widths = [stage.channels for stage in stages]
        self.stages = nn.ModuleList(map(_Stage, [3, *widths[:-1]], stages))
        self.unify = nn.ModuleList(nn.Linear(width, _HEAD_WIDTH) for width in widths)
        self.fuse = ConvBN(_HEAD_WIDTH * len(stages), _HEAD_WIDTH)
        self.classify = nn.Sequential(nn.Dropout2d(0.1), nn.Conv2d(_HEAD_WIDTH, num_classes, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Scores at 1/4 of the image's size."""
        x, maps = image, []
        for stage, unify in zip(self.stages, self.unify, strict=True):
            x = stage(x)
            maps.append(_map(unify(_tokens(x)), size_of(x)))
        joined = [resize(m, size_of(maps[0])) for m in reversed(maps[1:])]
        scores: Tensor = self.classify(self.fuse(torch.cat([*joined, maps[0]], dim=1)))
        return scores


NETWORKS: dict[str, Callable[[int], nn.Module]] = {"segformer-b0": SegFormer}
