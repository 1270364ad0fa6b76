"""DABNet (Li et al., "DABNet: depth-wise asymmetric bottleneck for real-time semantic
segmentation", BMVC 2019).

Each module sums two depthwise asymmetric pairs, 3x1 and 1x3, one of them dilated. The image,
averaged to 1/2, 1/4 and 1/8, is joined to the maps of those sizes. Scores at 1/8 of its size.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hmseg.families.mobile_blocks import conv

_EPS = 1e-3
_FIRST = (2, 2, 2)  # dilations of the modules at 1/4
_SECOND = (4, 4, 8, 8, 16, 16)  # and at 1/8


def _norm(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(channels, _EPS), nn.PReLU(channels))


def _layer(
    cin: int,
    cout: int,
    kernel: int | tuple[int, int],
    *,
    stride: int = 1,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
) -> nn.Sequential:
    return nn.Sequential(
        conv(cin, cout, kernel, stride=stride, dilation=dilation, groups=groups, bias=False),
        _norm(cout),
    )


def _asymmetric(channels: int, dilation: int) -> nn.Sequential:
    """Depthwise 3x1 and 1x3, dilated along their own axis."""
    c, d = channels, dilation
    return nn.Sequential(
        _layer(c, c, (3, 1), dilation=(d, 1), groups=c),
        _layer(c, c, (1, 3), dilation=(1, d), groups=c),
    )


class _Module(nn.Module):
    """Pre-activated: 3x3 to half the channels, the two pairs, 1x1; plus the input."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        half = channels // 2
        self.reduce = nn.Sequential(_norm(channels), _layer(channels, half, 3))
        self.plain = _asymmetric(half, 1)
        self.dilated = _asymmetric(half, dilation)
        self.expand = nn.Sequential(_norm(half), nn.Conv2d(half, channels, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        reduced = self.reduce(x)
        y: Tensor = self.expand(self.plain(reduced) + self.dilated(reduced))
        return x + y


class _Down(nn.Module):
    """Half the size; where channels are added, the convolution gives only those, beside a max
    pool of the input."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.pooled = cin < cout
        self.conv = conv(cin, cout - cin if self.pooled else cout, 3, stride=2, bias=False)
        self.norm = _norm(cout)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        if self.pooled:
            y = torch.cat([y, F.max_pool2d(x, 2)], dim=1)
        y = self.norm(y)
        return y


class _Stage(nn.Module):
    """Down, the modules, and what the first of them was given, beside what the last gives."""

    def __init__(self, cin: int, cout: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.down = _Down(cin, cout)
        self.blocks = nn.Sequential(*(_Module(cout, dilation) for dilation in dilations))

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.down(x)
        return [self.blocks(x), x]


class DABNet(nn.Module):
    """Images (N, 3, H, W), sides multiples of 8, to scores (N, num_classes, H/8, W/8)."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(_layer(3, 32, 3, stride=2), _layer(32, 32, 3), _layer(32, 32, 3))
        self.halve = nn.AvgPool2d(3, stride=2, padding=1)
        self.norm1 = _norm(32 + 3)
        self.stage1 = _Stage(32 + 3, 64, _FIRST)
        self.norm2 = _norm(2 * 64 + 3)
        self.stage2 = _Stage(2 * 64 + 3, 128, _SECOND)
        self.norm3 = _norm(2 * 128 + 3)
        self.classify = nn.Conv2d(2 * 128 + 3, num_classes, 1, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        """Scores at 1/8 of the image's size."""
        half = self.halve(image)
        fourth = self.halve(half)
        eighth = self.halve(fourth)
        x = self.norm1(torch.cat([self.stem(image), half], dim=1))
        x = self.norm2(torch.cat([*self.stage1(x), fourth], dim=1))
        x = self.norm3(torch.cat([*self.stage2(x), eighth], dim=1))
        scores: Tensor = self.classify(x)
        return scores


NETWORKS: dict[str, Callable[[int], nn.Module]] = {"dabnet": DABNet}
