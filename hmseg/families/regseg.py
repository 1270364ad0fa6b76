"""RegSeg (Gao, "Rethink dilated convolution for real-time semantic segmentation", 2021).

Grouped 3x3 convolutions, of which one half of the channels is dilated, up to 14; a light decoder.
Scores at 1/4 of the image's size.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hmseg.families.blocks import ConvBN, resize, size_of
from hmseg.families.mobile_blocks import SqueezeExcite

_GROUP = 16  # channels
# Dilations of the blocks with 256 channels at stride 1: all channels alike, or the two halves.
_DILATIONS = ((1,), (1, 2), *((1, 4),) * 4, *((1, 14),) * 6)


class _Dilated(nn.Module):
    """Grouped 3x3 with each part of the channels at a dilation of its own."""

    def __init__(self, channels: int, stride: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        part = channels // len(dilations)
        self.parts = nn.ModuleList(
            nn.Conv2d(part, part, 3, stride, d, d, groups=part // _GROUP, bias=False)
            for d in dilations
        )

    def forward(self, x: Tensor) -> Tensor:
        if len(self.parts) == 1:
            y: Tensor = self.parts[0](x)
            return y
        chunks = x.chunk(len(self.parts), dim=1)
        return torch.cat([c(chunk) for c, chunk in zip(self.parts, chunks, strict=True)], dim=1)


class _Block(nn.Module):
    """1x1, dilated 3x3, squeeze-excite, 1x1; the shortcut averages where the size is halved."""

    def __init__(
        self, cin: int, cout: int, *, stride: int = 1, dilations: tuple[int, ...] = (1,)
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            ConvBN(cin, cout),
            _Dilated(cout, stride, dilations),
            nn.BatchNorm2d(cout),
            nn.ReLU(),
            SqueezeExcite(cout, cin // 4, gate=nn.Sigmoid),
            ConvBN(cout, cout, act=None),
        )
        shortcut: list[nn.Module] = [nn.AvgPool2d(2)] if stride == 2 else []
        if stride == 2 or cin != cout:
            shortcut.append(ConvBN(cin, cout, act=None))
        self.shortcut = nn.Sequential(*shortcut)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.layers(x) + self.shortcut(x))


class RegSeg(nn.Module):
    """Images (N, 3, H, W), sides multiples of 16, to scores (N, num_classes, H/4, W/4)."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.fourth = nn.Sequential(ConvBN(3, 32, 3, stride=2), _Block(32, 48, stride=2))
        self.eighth = nn.Sequential(_Block(48, 128, stride=2), _Block(128, 128), _Block(128, 128))
        self.sixteenth = nn.Sequential(
            _Block(128, 256, stride=2),
            *(_Block(256, 256, dilations=dilations) for dilations in _DILATIONS),
            _Block(256, 320, dilations=(1, 14)),
        )
        self.from_sixteenth = ConvBN(320, 128)
        self.from_eighth = ConvBN(128, 128)
        self.from_fourth = ConvBN(48, 8)
        self.fuse_eighth = ConvBN(128, 64, 3)
        self.fuse_fourth = ConvBN(64 + 8, 64, 3)
        self.classify = nn.Conv2d(64, num_classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Scores at 1/4 of the image's size."""
        fourth = self.fourth(image)
        eighth = self.eighth(fourth)
        sixteenth = self.sixteenth(eighth)
        x = self.from_eighth(eighth)
        x = self.fuse_eighth(x + resize(self.from_sixteenth(sixteenth), size_of(x)))
        x = torch.cat([resize(x, size_of(fourth)), self.from_fourth(fourth)], dim=1)
        scores: Tensor = self.classify(self.fuse_fourth(x))
        return scores


NETWORKS: dict[str, Callable[[int], nn.Module]] = {"regseg": RegSeg}
