"""A network after ESPNet (Mehta et al., "ESPNet: efficient spatial pyramid of dilated convolutions
for semantic segmentation", ECCV 2018).

Each module narrows its input and runs five 3x3 convolutions at dilations 1 to 16 on it; their sums,
the smallest dilations first, stand side by side. The decoder is as wide as there are classes.
Scores at the image's size.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hmseg.families.mobile_blocks import conv

_EPS = 1e-3
_DILATIONS = (1, 2, 4, 8, 16)
_SECOND, _THIRD = 2, 8  # modules at 1/4 and at 1/8


def _norm(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm2d(channels, _EPS), nn.PReLU(channels))


class _Pyramid(nn.Module):
    """The dilated convolutions on one narrow map.

    The first one gives what is left when the others get a fifth each; its map stands beside the
    sums of the others.
    """

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        fifth = cout // len(_DILATIONS)
        first = cout - fifth * (len(_DILATIONS) - 1)
        self.branches = nn.ModuleList(
            conv(cin, first if d == 1 else fifth, 3, dilation=d, bias=False) for d in _DILATIONS
        )

    def forward(self, x: Tensor) -> Tensor:
        first, total, *rest = (branch(x) for branch in self.branches)
        parts = [first, total]
        for y in rest:
            total = total + y
            parts.append(total)
        return torch.cat(parts, dim=1)


class _Module(nn.Module):
    """1x1, the pyramid, and where the shape stays the input; then batch norm and PReLU."""

    def __init__(self, cin: int, cout: int, *, residual: bool = True) -> None:
        super().__init__()
        fifth = cout // len(_DILATIONS)
        self.reduce = nn.Conv2d(cin, fifth, 1, bias=False)
        self.pyramid = _Pyramid(fifth, cout)
        self.norm = _norm(cout)
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        y = self.pyramid(self.reduce(x))
        normed: Tensor = self.norm(x + y if self.residual else y)
        return normed


class _Down(nn.Sequential):
    """Half the size: as a module, its first convolution 3x3 at stride 2."""

    def __init__(self, cin: int, cout: int) -> None:
        fifth = cout // len(_DILATIONS)
        super().__init__(
            conv(cin, fifth, 3, stride=2, bias=False), _Pyramid(fifth, cout), _norm(cout)
        )


class ESPNet(nn.Module):
    """Images (N, 3, H, W), sides multiples of 8, to scores (N, num_classes, H, W)."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        k = max(num_classes, len(_DILATIONS))  # each branch of a module needs a channel
        self.stem = nn.Sequential(conv(3, 16, 3, stride=2, bias=False), _norm(16))
        self.norm1 = _norm(16 + 3)
        self.down2 = _Down(16 + 3, 64)
        self.stage2 = nn.Sequential(*(_Module(64, 64) for _ in range(_SECOND)))
        self.norm2 = _norm(2 * 64 + 3)
        self.down3 = _Down(2 * 64 + 3, 128)
        self.stage3 = nn.Sequential(*(_Module(128, 128) for _ in range(_THIRD)))
        self.norm3 = _norm(2 * 128)
        self.classify3 = nn.Conv2d(2 * 128, k, 1, bias=False)
        self.up3 = nn.Sequential(
            nn.BatchNorm2d(k, _EPS), nn.ConvTranspose2d(k, k, 2, stride=2, bias=False)
        )
        self.classify2 = nn.Conv2d(2 * 64 + 3, k, 1, bias=False)
        self.fuse2 = nn.Sequential(_norm(2 * k), _Module(2 * k, k, residual=False))
        self.up2 = nn.Sequential(nn.ConvTranspose2d(k, k, 2, stride=2, bias=False), _norm(k))
        self.fuse1 = nn.Sequential(conv(k + 16 + 3, k, 3, bias=False), _norm(k))
        self.scores = nn.ConvTranspose2d(k, num_classes, 2, stride=2, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        """Scores at the image's size."""
        half = F.avg_pool2d(image, 3, 2, 1)
        fourth = F.avg_pool2d(half, 3, 2, 1)
        level1 = self.norm1(torch.cat([self.stem(image), half], dim=1))
        x = self.down2(level1)
        level2 = self.norm2(torch.cat([self.stage2(x), x, fourth], dim=1))
        x = self.down3(level2)
        level3 = self.norm3(torch.cat([x, self.stage3(x)], dim=1))
        x = self.up3(self.classify3(level3))
        x = self.up2(self.fuse2(torch.cat([self.classify2(level2), x], dim=1)))
        scores: Tensor = self.scores(self.fuse1(torch.cat([x, level1], dim=1)))
        return scores


NETWORKS: dict[str, Callable[[int], nn.Module]] = {"espnet": ESPNet}
