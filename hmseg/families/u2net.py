"""U2-Net, the small version (Qin et al., "U2-Net: going deeper with nested U-structure for salient
object detection", Pattern Recognition 2020).

A U-Net each of whose stages is a small U-Net itself. Every decoder stage gives scores, and the
result is a 1x1 over all of them, at the image's size; in training all of them count alike.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hmseg.families.auxiliary import Auxiliary
from hmseg.families.blocks import ConvBN, resize, size_of

_MID, _WIDTH = 16, 64
_DEPTHS = (7, 6, 5, 4)  # of the stages' own U-Nets; the fifth and sixth have dilation instead


def _pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 2, 2, ceil_mode=True)


def _layer(cin: int, cout: int, dilation: int = 1) -> ConvBN:
    return ConvBN(cin, cout, 3, dilation=dilation, bias=True)


class _ResidualU(nn.Module):
    """A U-Net of `depth` levels between a convolution and the sum with its output."""

    def __init__(self, depth: int, cin: int) -> None:
        super().__init__()
        self.enter = _layer(cin, _WIDTH)
        self.down = nn.ModuleList(
            _layer(_WIDTH if level == 0 else _MID, _MID) for level in range(depth - 1)
        )
        self.bottom = _layer(_MID, _MID, dilation=2)
        self.up = nn.ModuleList(
            _layer(2 * _MID, _WIDTH if level == 0 else _MID) for level in range(depth - 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        entered: Tensor = self.enter(x)
        x, maps = entered, []
        for level, layer in enumerate(self.down):
            x = layer(_pool(x) if level else x)
            maps.append(x)
        x = self.bottom(x)
        for layer, skip in zip(reversed(self.up), reversed(maps), strict=True):
            x = layer(torch.cat([resize(x, size_of(skip)), skip], dim=1))
        return x + entered


class _DilatedResidualU(nn.Module):
    """The same at one size, with dilation in place of pooling."""

    def __init__(self, cin: int) -> None:
        super().__init__()
        self.enter = _layer(cin, _WIDTH)
        self.down = nn.ModuleList(
            [_layer(_WIDTH, _MID), _layer(_MID, _MID, 2), _layer(_MID, _MID, 4)]
        )
        self.bottom = _layer(_MID, _MID, 8)
        self.up = nn.ModuleList(
            [_layer(2 * _MID, _WIDTH), _layer(2 * _MID, _MID, 2), _layer(2 * _MID, _MID, 4)]
        )

    def forward(self, x: Tensor) -> Tensor:
        entered: Tensor = self.enter(x)
        x, maps = entered, []
        for layer in self.down:
            x = layer(x)
            maps.append(x)
        x = self.bottom(x)
        for layer, skip in zip(reversed(self.up), reversed(maps), strict=True):
            x = layer(torch.cat([x, skip], dim=1))
        return x + entered


class U2NetP(nn.Module):
    """Images (N, 3, H, W) to scores (N, num_classes, H, W)."""

    auxiliary = (Auxiliary(),) * 6

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(
            [
                *map(_ResidualU, _DEPTHS, (3, _WIDTH, _WIDTH, _WIDTH)),
                _DilatedResidualU(_WIDTH),
                _DilatedResidualU(_WIDTH),
            ]
        )
        joined = 2 * _WIDTH
        self.decoder = nn.ModuleList(
            [*(_ResidualU(depth, joined) for depth in _DEPTHS), _DilatedResidualU(joined)]
        )
        count = len(self.encoder)
        self.sides = nn.ModuleList(
            nn.Conv2d(_WIDTH, num_classes, 3, padding=1) for _ in range(count)
        )
        self.fuse = nn.Conv2d(count * num_classes, num_classes, 1)

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Scores at the image's size."""
        maps: list[Tensor] = []
        x = image
        for stage in self.encoder:
            x = stage(_pool(x) if maps else x)
            maps.append(x)
        decoded = [x]  # the largest first
        for stage, skip in zip(reversed(self.decoder), reversed(maps[:-1]), strict=True):
            x = stage(torch.cat([resize(x, size_of(skip)), skip], dim=1))
            decoded.insert(0, x)
        sides = [side(y) for side, y in zip(self.sides, decoded, strict=True)]
        scores: Tensor = self.fuse(torch.cat([resize(y, size_of(sides[0])) for y in sides], dim=1))
        return (scores, *sides) if self.training else scores


NETWORKS: dict[str, Callable[[int], nn.Module]] = {"u2net-p": U2NetP}
