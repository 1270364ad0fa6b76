"""Fast-SCNN (Poudel et al., "Fast-SCNN: fast semantic segmentation network", 2019).

Two branches share their first three layers; the deep one ends in pyramid pooling, and the two are
added. Scores at 1/8 of the image's size. Padding and resizing as in PaddleSeg; the auxiliary head
sits on the shared layers.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hmseg.families.auxiliary import Auxiliary
from hmseg.families.blocks import ConvBN, ScoreHead, resize, size_of
from hmseg.families.mobile_blocks import InvertedResidual, separable

_GRIDS = (1, 2, 3, 6)


def _bottlenecks(cin: int, cout: int, stride: int) -> nn.Sequential:
    blocks = (
        InvertedResidual(c, c * 6, cout, stride=s, act=nn.ReLU)
        for c, s in ((cin, stride), (cout, 1), (cout, 1))
    )
    return nn.Sequential(*blocks)


class _PyramidPooling(nn.Module):
    """The map beside its means over four grids."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        quarter = channels // len(_GRIDS)
        self.levels = nn.ModuleList(ConvBN(channels, quarter) for _ in _GRIDS)
        self.fuse = ConvBN(channels * 2, channels)

    def forward(self, x: Tensor) -> Tensor:
        levels = [
            resize(level(F.adaptive_avg_pool2d(x, (grid, grid))), size_of(x), align_corners=True)
            for grid, level in zip(_GRIDS, self.levels, strict=True)
        ]
        y: Tensor = self.fuse(torch.cat([x, *levels], dim=1))
        return y


class FastSCNN(nn.Module):
    """Images (N, 3, H, W) to scores (N, num_classes, H/8, W/8)."""

    auxiliary = (Auxiliary(0.4),)

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.downsample = nn.Sequential(
            ConvBN(3, 32, 3, stride=2), separable(32, 48, stride=2), separable(48, 64, stride=2)
        )
        self.context = nn.Sequential(
            _bottlenecks(64, 64, 2),
            _bottlenecks(64, 96, 2),
            _bottlenecks(96, 128, 1),
            _PyramidPooling(128),
        )
        self.low = nn.Sequential(
            ConvBN(128, 128, 3, groups=128), ConvBN(128, 128, bias=True, act=None)
        )
        self.high = ConvBN(64, 128, bias=True, act=None)
        self.classify = nn.Sequential(
            nn.ReLU(),
            separable(128, 128),
            separable(128, 128),
            nn.Dropout(0.1),
            nn.Conv2d(128, num_classes, 1),
        )
        self.aux_high = ScoreHead(64, 32, num_classes, dropout=0.1)

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Scores at 1/8 of the image's size."""
        high = self.downsample(image)
        low = self.low(resize(self.context(high), size_of(high)))
        scores: Tensor = self.classify(self.high(high) + low)
        return (scores, self.aux_high(high)) if self.training else scores


NETWORKS: dict[str, Callable[[int], nn.Module]] = {"fast-scnn": FastSCNN}
