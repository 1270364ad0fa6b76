"""SwiftNet (arXiv 1903.08469), single scale: an encoder, spatial pyramid pooling, and a decoder of
three steps, in pre-activation form throughout. Layers as in the authors' repository, which has no
MobileNetV2: there the skips (the stages' ends) are our inference. Scores at stride 4.
"""

from functools import partial

import torch
from torch import Tensor, nn

from hmseg.blocks import InvertedResidual
from hmseg.families.blocks import ConvBN, PreActConv, ResNet18, Size, resize, size_of

_WIDTH = 128
_LEVEL_WIDTH = 42
_GRIDS = (8, 4, 2)  # rows of the pyramid's grids; columns by the map's own proportions

# MobileNetV2 (arXiv 1801.04381): expansion, channels, blocks, stride of the first; a tap behind
# those of strides 4, 8, 16 and 32.
_MOBILENET_V2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_TAPS = (24, 32, 96, 320)


class MobileNetV2(nn.Module):
    """24, 32, 96 and 320 channels at strides 4, 8, 16 and 32."""

    CHANNELS = _TAPS

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvBN(3, 32, 3, stride=2, act=nn.ReLU6)
        self.stages = nn.ModuleList()
        cin = 32
        for expansion, cout, blocks, stride in _MOBILENET_V2:
            block = partial(InvertedResidual, expansion=expansion, kernel=3, dilation=1)
            others = (block(cout, cout, stride=1) for _ in range(blocks - 1))
            self.stages.append(nn.Sequential(block(cin, cout, stride=stride), *others))
            cin = cout

    def forward(self, image: Tensor) -> list[Tensor]:
        """(N, 3, H, W) -> four maps."""
        x = self.stem(image)
        maps = []
        for stage, (_, channels, _, _) in zip(self.stages, _MOBILENET_V2, strict=True):
            x = stage(x)
            if channels in _TAPS:
                maps.append(x)
        return maps


class PyramidPooling(nn.Module):
    """1x1 to 128; means over three grids, each to 42; all concatenated, 1x1 to 128."""

    def __init__(self, cin: int) -> None:
        super().__init__()
        self.squeeze = PreActConv(cin, _WIDTH)
        self.levels = nn.ModuleList(PreActConv(_WIDTH, _LEVEL_WIDTH) for _ in _GRIDS)
        self.fuse = PreActConv(_WIDTH + len(_GRIDS) * _LEVEL_WIDTH, _WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """(N, cin, H, W) -> (N, 128, H, W)."""
        x = self.squeeze(x)
        size = size_of(x)
        parts = [x]
        for rows, level in zip(_GRIDS, self.levels, strict=True):
            pooled = _average_over(x, (rows, max(1, round(rows * size[1] / size[0]))))
            parts.append(resize(level(pooled), size))
        y: Tensor = self.fuse(torch.cat(parts, dim=1))
        return y


def _average_over(x: Tensor, grid: Size) -> Tensor:
    if size_of(x) == grid:
        return x
    return nn.functional.adaptive_avg_pool2d(x, grid)


class UpStep(nn.Module):
    """The map from below, resized, plus a 1x1 of the skip; 3x3."""

    def __init__(self, cskip: int) -> None:
        super().__init__()
        self.skip = PreActConv(cskip, _WIDTH)
        self.blend = PreActConv(_WIDTH, _WIDTH, 3)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(N, 128, h, w), (N, cskip, H, W) -> (N, 128, H, W)."""
        y: Tensor = self.blend(resize(x, size_of(skip)) + self.skip(skip))
        return y


class SwiftNet(nn.Module):
    """H and W are multiples of 32, and W / H of the map at stride 32 near a whole number."""

    def __init__(self, num_classes: int, encoder: str) -> None:
        super().__init__()
        if encoder == "r18":
            self.encoder: nn.Module = ResNet18(before_relu=True)
            skips = ResNet18.CHANNELS
        else:
            self.encoder = MobileNetV2()
            skips = MobileNetV2.CHANNELS
        self.pyramid = PyramidPooling(skips[-1])
        self.up = nn.ModuleList(UpStep(c) for c in skips[-2::-1])
        self.classify = PreActConv(_WIDTH, num_classes, bias=True)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) -> scores (N, K, H/4, W/4)."""
        *skips, deepest = self.encoder(image)
        x = self.pyramid(deepest)
        for up, skip in zip(self.up, reversed(skips), strict=True):
            x = up(x, skip)
        scores: Tensor = self.classify(x)
        return scores


NETWORKS = {
    "swiftnet-r18": partial(SwiftNet, encoder="r18"),
    "swiftnet-mnv2": partial(SwiftNet, encoder="mnv2"),
}
