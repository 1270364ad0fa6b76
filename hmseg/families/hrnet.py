"""HRNetV2 (arXiv 1908.07919), small: parallel branches at strides 4 to 32 that all exchange after
each stage. Our own layer list, of the shape of the published W18-small-v1 (16, 32, 64, 128
channels, two blocks, one module a stage). Scores at stride 4.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hmseg.families.blocks import BasicBlock, Bottleneck, ConvBN, resize, size_of

WIDTHS = (16, 32, 64, 128)
_BLOCKS = 2


class Exchange(nn.Module):
    """Each branch becomes the sum of all, brought to its resolution and width, and ReLU."""

    def __init__(self, branches: int) -> None:
        super().__init__()
        self.paths = nn.ModuleList(
            nn.ModuleList(_path(source, target) for source in range(branches))
            for target in range(branches)
        )

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """(N, C_b, H_b, W_b) for each branch -> the same."""
        fused = []
        for target, paths in zip(maps, self.paths, strict=True):
            assert isinstance(paths, nn.ModuleList)
            size = size_of(target)
            total, *others = (resize(path(x), size) for path, x in zip(paths, maps, strict=True))
            for other in others:
                total = total + other
            fused.append(F.relu(total))
        return fused


def _path(source: int, target: int) -> nn.Module:
    """From one branch's width to another's: 1x1 up (resized behind it), 3x3 of stride 2 down."""
    cin, cout = WIDTHS[source], WIDTHS[target]
    if source == target:
        return nn.Identity()
    if source > target:
        return ConvBN(cin, cout, act=None)
    steps = target - source
    between = (ConvBN(cin, cin, 3, stride=2) for _ in range(steps - 1))
    return nn.Sequential(*between, ConvBN(cin, cout, 3, stride=2, act=None))


class Stage(nn.Module):
    """Basic blocks in each branch, then an exchange."""

    def __init__(self, branches: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*(BasicBlock(c, c) for _ in range(_BLOCKS))) for c in WIDTHS[:branches]
        )
        self.exchange = Exchange(branches)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """(N, C_b, H_b, W_b) for each branch -> the same."""
        done = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        fused: list[Tensor] = self.exchange(done)
        return fused


class HRNetSmall(nn.Module):
    """H and W are multiples of 32."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            ConvBN(3, 64, 3, stride=2), ConvBN(64, 64, 3, stride=2), Bottleneck(64, 32, 128)
        )
        self.begin = nn.ModuleList(
            [
                ConvBN(128, WIDTHS[0], 3),
                ConvBN(128, WIDTHS[1], 3, stride=2),
                ConvBN(WIDTHS[1], WIDTHS[2], 3, stride=2),
                ConvBN(WIDTHS[2], WIDTHS[3], 3, stride=2),
            ]
        )
        self.stages = nn.ModuleList([Stage(2), Stage(3), Stage(4)])
        total = sum(WIDTHS)
        self.head = nn.Sequential(ConvBN(total, total), nn.Conv2d(total, num_classes, 1))

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) -> scores (N, K, H/4, W/4)."""
        x = self.stem(image)
        maps = self.stages[0]([self.begin[0](x), self.begin[1](x)])
        for begin, stage in zip(self.begin[2:], self.stages[1:], strict=True):
            maps = stage([*maps, begin(maps[-1])])
        size = size_of(maps[0])
        scores: Tensor = self.head(torch.cat([resize(x, size) for x in maps], dim=1))
        return scores


NETWORKS = {"hrnet-w18-small": HRNetSmall}
