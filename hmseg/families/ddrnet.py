"""DDRNet (arXiv 2101.06085): one branch stays at stride 8, the other goes to 64, and they exchange
twice. Layers as in the authors' repository. Scores at stride 8; the auxiliary head sits on the
high branch before its second half.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hmseg.families.auxiliary import Auxiliary
from hmseg.families.blocks import (
    Bottleneck,
    ConvBN,
    PreActConv,
    basic_stage,
    resize,
    size_of,
)

# Kernels and strides of the pyramid's average pools; the padding counts as zeros, as torch's does.
POOLS = ((5, 2), (9, 4), (17, 8))


def pyramid_levels(cin: int, cout: int) -> nn.ModuleList:
    """The 1x1 on the map itself, then those on its average pools, the last on its mean."""
    pools = [nn.AvgPool2d(kernel, stride, kernel // 2) for kernel, stride in POOLS]
    return nn.ModuleList(
        [
            PreActConv(cin, cout),
            *(nn.Sequential(pool, PreActConv(cin, cout)) for pool in pools),
            nn.Sequential(nn.AdaptiveAvgPool2d(1), PreActConv(cin, cout)),
        ]
    )


def stem(width: int) -> nn.Sequential:
    """Two 3x3 to stride 4, with a bias before the batch norm."""
    return nn.Sequential(
        ConvBN(3, width, 3, stride=2, bias=True), ConvBN(width, width, 3, stride=2, bias=True)
    )


class PreActHead(nn.Sequential):
    """3x3 to `mid` channels and 1x1 scores, each behind batch norm and ReLU."""

    def __init__(self, cin: int, mid: int, cout: int) -> None:
        super().__init__(PreActConv(cin, mid, 3), PreActConv(mid, cout, bias=True))


class DAPPM(nn.Module):
    """Deep aggregation pyramid: each level, resized, is added to the one before, then a 3x3."""

    def __init__(self, cin: int, mid: int, cout: int) -> None:
        super().__init__()
        self.levels = pyramid_levels(cin, mid)
        self.process = nn.ModuleList(PreActConv(mid, mid, 3) for _ in self.levels[1:])
        self.compress = PreActConv(mid * len(self.levels), cout)
        self.shortcut = PreActConv(cin, cout)

    def forward(self, x: Tensor) -> Tensor:
        """(N, cin, H, W) -> (N, cout, H, W)."""
        size = size_of(x)
        parts = [self.levels[0](x)]
        for level, process in zip(self.levels[1:], self.process, strict=True):
            parts.append(process(resize(level(x), size) + parts[-1]))
        y: Tensor = self.compress(torch.cat(parts, dim=1)) + self.shortcut(x)
        return y


class DDRNet(nn.Module):
    """`width` is the stem's, `head` the classifier's; H and W are multiples of 64.

    Names of the maps: `high` at stride 8, `low` at 16, 32, 64. Stages end before their ReLU.
    """

    auxiliary = (Auxiliary(0.4),)

    def __init__(self, num_classes: int, width: int, head: int) -> None:
        super().__init__()
        p = width
        self.stem = stem(p)
        self.stage1 = basic_stage(p, p, 2)
        self.stage2 = basic_stage(p, 2 * p, 2, stride=2)
        self.low3 = basic_stage(2 * p, 4 * p, 2, stride=2)
        self.low4 = basic_stage(4 * p, 8 * p, 2, stride=2)
        self.low5 = Bottleneck(8 * p, 8 * p, 16 * p, stride=2, act=False)
        self.high3 = basic_stage(2 * p, 2 * p, 2)
        self.high4 = basic_stage(2 * p, 2 * p, 2)
        self.high5 = Bottleneck(2 * p, 2 * p, 4 * p, act=False)
        self.up3 = ConvBN(4 * p, 2 * p, act=None)
        self.up4 = ConvBN(8 * p, 2 * p, act=None)
        self.down3 = ConvBN(2 * p, 4 * p, 3, stride=2, act=None)
        self.down4 = nn.Sequential(
            ConvBN(2 * p, 4 * p, 3, stride=2), ConvBN(4 * p, 8 * p, 3, stride=2, act=None)
        )
        self.pyramid = DAPPM(16 * p, 128, 4 * p)
        self.head = PreActHead(4 * p, head, num_classes)
        self.aux_high = PreActHead(2 * p, head, num_classes)

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        """(N, 3, H, W) -> scores (N, K, H/8, W/8)."""
        x = F.relu(self.stage2(F.relu(self.stage1(self.stem(image)))))
        size = size_of(x)
        low, high = self.low3(x), self.high3(x)
        low, high = (
            low + self.down3(F.relu(high)),
            high + resize(self.up3(F.relu(low)), size),
        )
        half_way = high
        low, high = self.low4(F.relu(low)), self.high4(F.relu(high))
        low, high = (
            low + self.down4(F.relu(high)),
            high + resize(self.up4(F.relu(low)), size),
        )
        low, high = self.low5(F.relu(low)), self.high5(F.relu(high))
        scores: Tensor = self.head(high + resize(self.pyramid(low), size))
        return (scores, self.aux_high(half_way)) if self.training else scores


NETWORKS = {
    "ddrnet-23-slim": partial(DDRNet, width=32, head=64),
    "ddrnet-23": partial(DDRNet, width=64, head=128),
}
