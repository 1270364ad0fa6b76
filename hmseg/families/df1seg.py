"""DF1-Seg (Li et al., "Partial order pruning: for best speed/accuracy trade-off in neural
architecture search", CVPR 2019), from the layers of the authors' deployed network.

A plain residual backbone, pyramid pooling at 1/32, and a decoder as wide as there are classes; it
upsamples by depthwise transposed convolutions. Scores at 1/8 of the image's size.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hmseg.families.blocks import BasicBlock, ConvBN, resize, size_of

# (channels, blocks, stride): taps at 1/8 and 1/16 behind the first two.
_STAGES = ((64, 3, 2), (128, 3, 2), (256, 3, 2), (512, 1, 1))
_GRIDS = ((1, 2), (2, 4), (4, 8), (8, 16))  # of an image twice as wide as high


class DF1(nn.Module):
    """The backbone: images (N, 3, H, W) to maps at 1/8 (64), 1/16 (128) and 1/32 (512 channels)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvBN(3, 32, 3, stride=2), ConvBN(32, 64, 3, stride=2))
        self.stages = nn.ModuleList()
        cin = 64
        for cout, count, stride in _STAGES:
            rest = (BasicBlock(cout, cout) for _ in range(count - 1))
            self.stages.append(nn.Sequential(BasicBlock(cin, cout, stride=stride), *rest))
            cin = cout

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The three maps."""
        eighth: Tensor = self.stages[0](self.stem(image))
        sixteenth: Tensor = self.stages[1](eighth)
        low: Tensor = self.stages[3](self.stages[2](sixteenth))
        return eighth, sixteenth, low


class _PyramidPooling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.levels = nn.ModuleList(ConvBN(512, 128) for _ in _GRIDS)
        self.fuse = ConvBN(512 + 128 * len(_GRIDS), 512, 3)

    def forward(self, x: Tensor) -> Tensor:
        levels = [
            resize(level(F.adaptive_avg_pool2d(x, grid)), size_of(x))
            for grid, level in zip(_GRIDS, self.levels, strict=True)
        ]
        y: Tensor = self.fuse(torch.cat([x, *levels], dim=1))
        return y


class _Join(nn.Module):
    """Twice the size, beside a map of that size narrowed to as many channels."""

    def __init__(self, channels: int, skip: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(
            channels, channels, 4, stride=2, padding=1, groups=channels, bias=False
        )
        self.narrow = ConvBN(skip, channels)
        self.fuse = ConvBN(channels * 2, channels, 3)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        y: Tensor = self.fuse(torch.cat([self.up(x), self.narrow(skip)], dim=1))
        return y


class DF1Seg(nn.Module):
    """Images (N, 3, H, W), sides multiples of 32, to scores (N, num_classes, H/8, W/8)."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.backbone = DF1()
        self.low = nn.Sequential(_PyramidPooling(), ConvBN(512, 128), ConvBN(128, 32))
        self.join_sixteenth = _Join(32, 128)
        self.narrow = ConvBN(32, num_classes)
        self.join_eighth = _Join(num_classes, 64)
        self.scores = ConvBN(num_classes, num_classes, 3, act=None)

    def forward(self, image: Tensor) -> Tensor:
        """Scores at 1/8 of the image's size."""
        eighth, sixteenth, low = self.backbone(image)
        x = self.narrow(self.join_sixteenth(self.low(low), sixteenth))
        scores: Tensor = self.scores(self.join_eighth(x, eighth))
        return scores


NETWORKS: dict[str, Callable[[int], nn.Module]] = {"df1-seg": DF1Seg}
