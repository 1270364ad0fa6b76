"""The building blocks, each once (paper section 3.1; MobileNetV2 for the inverted residual)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvBN(nn.Sequential):
    """Convolution without bias, batch norm, and ReLU6 unless `act` is False.

    Padding is dilation * (kernel // 2): at stride 1 the size stays, at stride 2 it is halved,
    rounded up.
    """

    def __init__(
        self,
        cin: int,
        cout: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        act: bool = True,
    ) -> None:
        padding = dilation * (kernel // 2)
        conv = nn.Conv2d(cin, cout, kernel, stride, padding, dilation, groups, bias=False)
        layers: list[nn.Module] = [conv, nn.BatchNorm2d(cout)]
        super().__init__(*layers, *([nn.ReLU6()] if act else []))


class InvertedResidual(nn.Module):
    """MobileNetV2's block: 1x1 expansion (none at expansion 1), depthwise, linear projection.

    Input (N, cin, H, W), output (N, cout, ceil(H/stride), ceil(W/stride)); the input is added
    where the shape does not change.
    """

    def __init__(
        self, cin: int, cout: int, *, expansion: int, kernel: int, stride: int, dilation: int
    ) -> None:
        super().__init__()
        hidden = cin * expansion
        self.expand = ConvBN(cin, hidden) if expansion > 1 else nn.Identity()
        self.depthwise = ConvBN(
            hidden, hidden, kernel, stride=stride, dilation=dilation, groups=hidden
        )
        self.project = ConvBN(hidden, cout, act=False)
        self.residual = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        y = self.branch(x)
        return x + y if self.residual else y

    def branch(self, x: Tensor) -> Tensor:
        """The block without the addition of its input."""
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return y


class LGE(nn.Module):
    """Local-global enhancement (paper section 3.1): depthwise-separable features times a
    channel attention from their own global average.

    (N, cin, H, W) -> (N, cout, H, W), without a final activation. The internals are our inference
    from the printed counts (docs/networks.md).
    """

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.depthwise = ConvBN(cin, cin, 3, groups=cin)
        self.pointwise = ConvBN(cin, cout, act=False)
        self.attention = nn.Conv2d(cin, cout, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block."""
        local = self.depthwise(x)
        gate = torch.sigmoid(self.attention(global_average(local)))
        enhanced: Tensor = self.pointwise(local) * gate
        return enhanced


def global_average(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, 1, 1)."""
    return x.mean(dim=(2, 3), keepdim=True)


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, half-pixel centres (align_corners=False), to (H, W) in pixels.

    The size is always explicit: with a scale factor, importers disagree about the coordinates.
    """
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def downsample(x: Tensor, tenths: int) -> Tensor:
    """Bilinear resize to `tenths`/10 of the size, rounded down in integers, at least one pixel."""
    height, width = x.shape[-2:]
    return resize(x, (max(1, height * tenths // 10), max(1, width * tenths // 10)))
