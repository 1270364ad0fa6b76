"""Blocks that several of the small networks share, beside those of all (`blocks`)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from hmseg.blocks import global_average
from hmseg.families.blocks import ConvBN

Activation = Callable[[], nn.Module]


def conv(
    cin: int,
    cout: int,
    kernel: int | tuple[int, int] = 1,
    *,
    stride: int = 1,
    dilation: int | tuple[int, int] = 1,
    groups: int = 1,
    bias: bool = True,
) -> nn.Conv2d:
    """With "same" padding: the size stays, or is divided by the stride, rounded up."""
    kernel, dilation = _pair(kernel), _pair(dilation)
    padding = (dilation[0] * (kernel[0] // 2), dilation[1] * (kernel[1] // 2))
    return nn.Conv2d(cin, cout, kernel, stride, padding, dilation, groups, bias)


def separable(cin: int, cout: int, *, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """Depthwise 3x3, then 1x1, each with batch norm and ReLU."""
    return nn.Sequential(
        ConvBN(cin, cin, 3, stride=stride, dilation=dilation, groups=cin), ConvBN(cin, cout)
    )


class SqueezeExcite(nn.Module):
    """Channels weighted by a gate in 0..1 that is computed from their means over the map."""

    def __init__(
        self,
        channels: int,
        squeezed: int,
        *,
        act: Activation = nn.ReLU,
        gate: Activation = nn.Hardsigmoid,
    ) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.Conv2d(channels, squeezed, 1), act(), nn.Conv2d(squeezed, channels, 1), gate()
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same shape."""
        weighted: Tensor = x * self.gate(global_average(x))
        return weighted


class InvertedResidual(nn.Module):
    """1x1 to `hidden` channels (none where that is `cin`), depthwise, squeeze-excite where `excite`
    makes one for the hidden channels, linear 1x1; the input is added where the shape stays."""

    def __init__(
        self,
        cin: int,
        hidden: int,
        cout: int,
        kernel: int = 3,
        *,
        stride: int = 1,
        dilation: int = 1,
        act: Activation,
        excite: Callable[[int], nn.Module] | None = None,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if hidden != cin:
            layers.append(ConvBN(cin, hidden, act=act, eps=eps))
        layers.append(
            ConvBN(
                hidden, hidden, kernel, stride=stride, dilation=dilation, groups=hidden, act=act,
                eps=eps,
            )
        )  # fmt: skip
        if excite:
            layers.append(excite(hidden))
        layers.append(ConvBN(hidden, cout, act=None, eps=eps))
        self.layers = nn.Sequential(*layers)
        self.residual = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        """(N, cin, H, W) -> (N, cout, ceil(H/stride), ceil(W/stride))."""
        y: Tensor = self.layers(x)
        return x + y if self.residual else y


class ChannelNorm(nn.Module):
    """Layer norm over the channels of each pixel of (N, C, H, W), written out."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        centred = x - x.mean(dim=1, keepdim=True)
        variance = centred.pow(2).mean(dim=1, keepdim=True)
        y = centred / torch.sqrt(variance + self.eps)
        return y * self.weight[:, None, None] + self.bias[:, None, None]


def _pair(value: int | tuple[int, int]) -> tuple[int, int]:
    return value if isinstance(value, tuple) else (value, value)
