"""ERFNet (Romera et al., "ERFNet: efficient residual factorized ConvNet", T-ITS 2018).

Residual blocks of asymmetric convolutions, 3x1 and 1x3, the second pair dilated along one axis; the
way up is transposed convolutions. Scores at the image's size.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_EPS = 1e-3


class _Down(nn.Module):
    """Half the size: a strided convolution beside a max pool, then one batch norm over both."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(cin, cout - cin, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(cout, _EPS)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(torch.cat([self.conv(x), F.max_pool2d(x, 2)], dim=1)))


class _Factorized(nn.Module):
    """Non-bottleneck-1D: two 3x3 convolutions, each as 3x1 and 1x3, the second one dilated."""

    def __init__(self, channels: int, dilation: int, dropout: float) -> None:
        super().__init__()
        c, d = channels, dilation
        self.layers = nn.Sequential(
            nn.Conv2d(c, c, (3, 1), padding=(1, 0)),
            nn.ReLU(),
            nn.Conv2d(c, c, (1, 3), padding=(0, 1)),
            nn.BatchNorm2d(c, _EPS),
            nn.ReLU(),
            nn.Conv2d(c, c, (3, 1), padding=(d, 0), dilation=(d, 1)),
            nn.ReLU(),
            nn.Conv2d(c, c, (1, 3), padding=(0, d), dilation=(1, d)),
            nn.BatchNorm2d(c, _EPS),
            nn.Dropout2d(dropout),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.layers(x) + x)


class _Up(nn.Sequential):
    """Twice the size."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__(
            nn.ConvTranspose2d(cin, cout, 3, stride=2, padding=1, output_padding=1),
            nn.BatchNorm2d(cout, _EPS),
            nn.ReLU(),
        )


class ERFNet(nn.Sequential):
    """Images (N, 3, H, W), sides multiples of 8, to scores (N, num_classes, H, W)."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(
            _Down(3, 16),
            _Down(16, 64),
            *(_Factorized(64, 1, 0.03) for _ in range(5)),
            _Down(64, 128),
            *(_Factorized(128, dilation, 0.3) for dilation in (2, 4, 8, 16) * 2),
            _Up(128, 64),
            *(_Factorized(64, 1, 0) for _ in range(2)),
            _Up(64, 16),
            *(_Factorized(16, 1, 0) for _ in range(2)),
            nn.ConvTranspose2d(16, num_classes, 2, stride=2),
        )


NETWORKS: dict[str, Callable[[int], nn.Module]] = {"erfnet": ERFNet}
