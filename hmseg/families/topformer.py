"""TopFormer (Zhang et al., "TopFormer: token pyramid transformer for mobile semantic segmentation",
CVPR 2022).

Inverted residuals down to 1/32; the four maps, averaged to 1/64 and joined, pass a few transformer
blocks, and what comes out gates each map. Scores at 1/8 of the image's size.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hmseg.families.blocks import ConvBN, resize, size_of
from hmseg.families.mobile_blocks import InvertedResidual

_KEY, _VALUE = 16, 32  # channels of a head
_BLOCKS = 4

Row = tuple[int, int, int, int]  # kernel, expansion, channels, stride


@dataclass(frozen=True)
class Config:
    """The token pyramid's four stages (1/4, 1/8, 1/16, 1/32), attention heads, the head's width."""

    stages: tuple[tuple[Row, ...], ...]
    heads: int
    width: int

    @property
    def channels(self) -> list[int]:
        """Of the four maps."""
        return [stage[-1][2] for stage in self.stages]


TINY = Config(
    (
        ((3, 1, 16, 1), (3, 4, 16, 2), (3, 3, 16, 1)),
        ((5, 3, 32, 2), (5, 3, 32, 1)),
        ((3, 3, 64, 2), (3, 3, 64, 1)),
        ((5, 6, 96, 2), (5, 6, 96, 1)),
    ),
    heads=4,
    width=128,
)
SMALL = Config(
    (
        ((3, 1, 16, 1), (3, 4, 24, 2), (3, 3, 24, 1)),
        ((5, 3, 48, 2), (5, 3, 48, 1)),
        ((3, 3, 96, 2), (3, 3, 96, 1)),
        ((5, 6, 128, 2), (5, 6, 128, 1), (3, 6, 128, 1)),
    ),
    heads=6,
    width=192,
)
BASE = Config(
    (
        ((3, 1, 16, 1), (3, 4, 32, 2), (3, 3, 32, 1)),
        ((5, 3, 64, 2), (5, 3, 64, 1)),
        ((3, 3, 128, 2), (3, 3, 128, 1)),
        ((5, 6, 160, 2), (5, 6, 160, 1), (3, 6, 160, 1)),
    ),
    heads=8,
    width=256,
)


def token_stages(stages: tuple[tuple[Row, ...], ...], cin: int = 16) -> nn.ModuleList:
    """The pyramid behind a stem of `cin` channels."""
    modules = nn.ModuleList()
    for stage in stages:
        blocks = []
        for kernel, expansion, cout, stride in stage:
            blocks.append(
                InvertedResidual(cin, cin * expansion, cout, kernel, stride=stride, act=nn.ReLU)
            )
            cin = cout
        modules.append(nn.Sequential(*blocks))
    return modules


class _Attention(nn.Module):
    """Between all pixels, by 1x1 convolutions with batch norm."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = ConvBN(channels, heads * _KEY, act=None)
        self.key = ConvBN(channels, heads * _KEY, act=None)
        self.value = ConvBN(channels, heads * _VALUE, act=None)
        self.project = nn.Sequential(nn.ReLU6(), ConvBN(heads * _VALUE, channels, act=None))

    def forward(self, x: Tensor) -> Tensor:
        height, width = size_of(x)
        split = (x.shape[0], self.heads, -1, height * width)
        q = self.query(x).reshape(split).transpose(2, 3)
        k, v = self.key(x).reshape(split), self.value(x).reshape(split)
        weights = torch.softmax(q @ k * _KEY**-0.5, dim=-1)
        mixed = (weights @ v.transpose(2, 3)).transpose(2, 3)
        y: Tensor = self.project(mixed.reshape(x.shape[0], -1, height, width))
        return y


def token_mlp(channels: int, ratio: int) -> nn.Sequential:
    """An MLP with batch norm, and a depthwise 3x3 between its layers."""
    hidden = channels * ratio
    return nn.Sequential(
        ConvBN(channels, hidden, act=None),
        nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden),
        nn.ReLU6(),
        ConvBN(hidden, channels, act=None),
    )


class _Block(nn.Module):
    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.attention = _Attention(channels, heads)
        self.mlp = token_mlp(channels, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x)
        x = x + self.mlp(x)
        return x


class _Injection(nn.Module):
    """A map of the pyramid, gated by its part of the tokens, plus another view of those."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.local = ConvBN(channels, width, act=None)
        self.gate = ConvBN(channels, width, act=nn.Hardsigmoid)
        self.semantics = ConvBN(channels, width, act=None)

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        gate, semantics = (
            resize(self.gate(tokens), size_of(x)),
            resize(self.semantics(tokens), size_of(x)),
        )
        y: Tensor = self.local(x) * gate + semantics
        return y


class TopFormer(nn.Module):
    """Images (N, 3, H, W), sides multiples of 64, to scores (N, num_classes, H/8, W/8)."""

    def __init__(self, num_classes: int, config: Config) -> None:
        super().__init__()
        self.channels = config.channels
        self.stem = ConvBN(3, 16, 3, stride=2)
        self.stages = token_stages(config.stages)
        total = sum(self.channels)
        self.blocks = nn.Sequential(*(_Block(total, config.heads) for _ in range(_BLOCKS)))
        self.injections = nn.ModuleList(_Injection(c, config.width) for c in self.channels[1:])
        self.classify = nn.Sequential(
            ConvBN(config.width, config.width),
            nn.Dropout2d(0.1),
            nn.Conv2d(config.width, num_classes, 1),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Scores at 1/8 of the image's size."""
        x, maps = self.stem(image), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        height, width = size_of(maps[-1])
        grid = -(-height // 2), -(-width // 2)
        tokens = torch.cat([F.adaptive_avg_pool2d(m, grid) for m in maps], dim=1)
        parts = self.blocks(tokens).split(self.channels, dim=1)
        injected = [
            inject(m, part)
            for inject, m, part in zip(self.injections, maps[1:], parts[1:], strict=True)
        ]
        total = injected[0]
        for y in injected[1:]:
            total = total + resize(y, size_of(total))
        scores: Tensor = self.classify(total)
        return scores


NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "topformer-t": partial(TopFormer, config=TINY),
    "topformer-s": partial(TopFormer, config=SMALL),
    "topformer-b": partial(TopFormer, config=BASE),
}
