"""ConvNeXt (Liu et al., "A ConvNet for the 2020s", CVPR 2022) with a simple head: each stage's map
to one width, all summed. Scores at 1/4 of the image's size.

Atto is the smallest published size, Tiny the paper's.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hmseg.families.blocks import resize, size_of
from hmseg.families.mobile_blocks import ChannelNorm

_EPS = 1e-6


class Stage(NamedTuple):
    """Channels and blocks; at 1/4, 1/8, 1/16 and 1/32."""

    channels: int
    blocks: int


ATTO = (Stage(40, 2), Stage(80, 2), Stage(160, 6), Stage(320, 2))
TINY = (Stage(96, 3), Stage(192, 3), Stage(384, 9), Stage(768, 3))
_HEAD_WIDTH = 128


class _Block(nn.Module):
    """Depthwise 7x7, layer norm, an MLP on each pixel, a scale for each channel; plus the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, _EPS)
        self.expand = nn.Linear(channels, 4 * channels)
        self.project = nn.Linear(4 * channels, channels)
        # The paper trains from 1e-6, at which random weights would try no block.
        self.scale = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y: Tensor = self.scale * self.project(F.gelu(self.expand(normed)))
        return x + y.permute(0, 3, 1, 2)


class Trunk(nn.Module):
    """Images (N, 3, H, W), sides multiples of 32, to the maps of the four stages."""

    def __init__(self, stages: tuple[Stage, ...]) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        cin = 0
        for channels, count in stages:
            down: list[nn.Module]
            if cin:
                down = [ChannelNorm(cin), nn.Conv2d(cin, channels, 2, stride=2)]
            else:
                down = [nn.Conv2d(3, channels, 4, stride=4), ChannelNorm(channels)]
            blocks = (_Block(channels) for _ in range(count))
            self.stages.append(nn.Sequential(*down, *blocks))
            cin = channels

    def forward(self, image: Tensor) -> list[Tensor]:
        """The four maps."""
        x, maps = image, []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class ConvNeXt(nn.Module):
    """Images (N, 3, H, W), sides multiples of 32, to scores (N, num_classes, H/4, W/4)."""

    def __init__(self, num_classes: int, stages: tuple[Stage, ...]) -> None:
        super().__init__()
        self.trunk = Trunk(stages)
        self.lateral = nn.ModuleList(
            nn.Sequential(ChannelNorm(c), nn.Conv2d(c, _HEAD_WIDTH, 1)) for c, _ in stages
        )
        self.classify = nn.Sequential(nn.GELU(), nn.Conv2d(_HEAD_WIDTH, num_classes, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Scores at 1/4 of the image's size."""
        maps = self.trunk(image)
        first, *rest = (layer(x) for layer, x in zip(self.lateral, maps, strict=True))
        for y in rest:
            first = first + resize(y, size_of(first))
        scores: Tensor = self.classify(first)
        return scores


NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "convnext-atto": partial(ConvNeXt, stages=ATTO),
    "convnext-tiny": partial(ConvNeXt, stages=TINY),
}
