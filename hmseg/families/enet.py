"""ENet (Paszke et al., "ENet: a deep neural network architecture for real-time semantic
segmentation", 2016).

Bottlenecks with plain, dilated or asymmetric middles; what the max pools dropped is put back at its
place by their indices. Scores at the image's size.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hmseg.families.blocks import size_of
from hmseg.families.mobile_blocks import conv

_EPS = 1e-3
Act = Callable[[int], nn.Module]  # an activation for so many channels


def _relu(channels: int) -> nn.Module:
    del channels  # as PReLU is called, which has a slope for each
    return nn.ReLU()


class _Normed(nn.Sequential):
    """Layers, batch norm, activation."""

    def __init__(self, channels: int, *layers: nn.Module, act: Act = nn.PReLU) -> None:
        super().__init__(*layers, nn.BatchNorm2d(channels, _EPS), act(channels))


class _Bottleneck(nn.Module):
    """A quarter of the channels, the middle, the channels again; plus the input."""

    def __init__(self, channels: int, *middle: nn.Module, dropout: float, act: Act) -> None:
        super().__init__()
        c, inner = channels, channels // 4
        self.branch = nn.Sequential(
            _Normed(inner, nn.Conv2d(c, inner, 1, bias=False), act=act),
            _Normed(inner, *middle, act=act),
            nn.Conv2d(inner, c, 1, bias=False),
            nn.BatchNorm2d(c, _EPS),
            nn.Dropout2d(dropout),
        )
        self.act = act(c)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(x + self.branch(x))
        return y


def _regular(
    channels: int, dilation: int = 1, *, dropout: float = 0.1, act: Act = nn.PReLU
) -> _Bottleneck:
    inner = channels // 4
    middle = conv(inner, inner, 3, dilation=dilation)
    return _Bottleneck(channels, middle, dropout=dropout, act=act)


def _asymmetric(channels: int) -> _Bottleneck:
    inner = channels // 4
    middle = conv(inner, inner, (1, 5), bias=False), conv(inner, inner, (5, 1))
    return _Bottleneck(channels, *middle, dropout=0.1, act=nn.PReLU)


class _Down(nn.Module):
    """Half the size. The shortcut is a max pool, padded with channels of zeros; its indices are
    handed out for the way up."""

    def __init__(self, cin: int, cout: int, dropout: float) -> None:
        super().__init__()
        inner = cout // 4
        self.branch = nn.Sequential(
            _Normed(inner, nn.Conv2d(cin, inner, 2, stride=2, bias=False)),
            _Normed(inner, conv(inner, inner, 3)),
            nn.Conv2d(inner, cout, 1, bias=False),
            nn.BatchNorm2d(cout, _EPS),
            nn.Dropout2d(dropout),
        )
        self.pool = nn.MaxPool2d(2, return_indices=True)
        self.act = nn.PReLU(cout)
        self.zeros = cout - cin

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        pooled, indices = self.pool(x)
        shortcut = F.pad(pooled, (0, 0, 0, 0, 0, self.zeros))
        return self.act(shortcut + self.branch(x)), indices


class _Up(nn.Module):
    """Twice the size. The shortcut puts each pixel back where the pool of that stage found it."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        inner = cout // 4
        up = nn.ConvTranspose2d(inner, inner, 3, stride=2, padding=1, output_padding=1)
        self.branch = nn.Sequential(
            _Normed(inner, nn.Conv2d(cin, inner, 1, bias=False), act=_relu),
            _Normed(inner, up, act=_relu),
            nn.Conv2d(inner, cout, 1, bias=False),
            nn.BatchNorm2d(cout, _EPS),
        )
        self.shortcut = nn.Sequential(
            nn.Conv2d(cin, cout, 1, bias=False), nn.BatchNorm2d(cout, _EPS)
        )

    def forward(self, x: Tensor, indices: Tensor) -> Tensor:
        y: Tensor = self.branch(x)
        shortcut = F.max_unpool2d(self.shortcut(x), indices, (2, 2), output_size=size_of(y))
        return F.relu(shortcut + y)


class ENet(nn.Module):
    """Images (N, 3, H, W), sides multiples of 8, to scores (N, num_classes, H, W)."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.initial = nn.Conv2d(3, 13, 3, stride=2, padding=1)
        self.initial_norm = nn.Sequential(nn.BatchNorm2d(16, _EPS), nn.PReLU(16))
        self.down1 = _Down(16, 64, 0.01)
        self.stage1 = nn.Sequential(*(_regular(64, dropout=0.01) for _ in range(4)))
        self.down2 = _Down(64, 128, 0.1)
        self.stages23 = nn.Sequential(
            *(
                block
                for _ in range(2)
                for block in (
                    _regular(128), _regular(128, 2), _asymmetric(128), _regular(128, 4),
                    _regular(128), _regular(128, 8), _asymmetric(128), _regular(128, 16),
                )
            )
        )  # fmt: skip
        self.up4 = _Up(128, 64)
        self.stage4 = nn.Sequential(*(_regular(64, dropout=0, act=_relu) for _ in range(2)))
        self.up5 = _Up(64, 16)
        self.stage5 = _regular(16, dropout=0, act=_relu)
        self.scores = nn.ConvTranspose2d(16, num_classes, 2, stride=2)

    def forward(self, image: Tensor) -> Tensor:
        """Scores at the image's size."""
        x = self.initial_norm(torch.cat([self.initial(image), F.max_pool2d(image, 2)], dim=1))
        x, first = self.down1(x)
        x, second = self.down2(self.stage1(x))
        x = self.stage4(self.up4(self.stages23(x), second))
        scores: Tensor = self.scores(self.stage5(self.up5(x, first)))
        return scores


NETWORKS: dict[str, Callable[[int], nn.Module]] = {"enet": ENet}
