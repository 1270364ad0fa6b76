"""Networks as users bring them: MobileNetV2, LR-ASPP on MobileNetV3, DeepLabv3+, at tiny widths,
and MobileNetV2 with an FCN's head.

Written from the papers (arXiv 1801.04381, 1905.02244, 1802.02611); exported as a user would, by
``torch.onnx.export`` of float (1, 3, H, W) to class scores.
"""

import contextlib
import io
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deploy.resolution import Resolution

SIZE = Resolution(64, 96)
CLASSES = 7


def conv(
    cin: int, cout: int, kernel: int = 1, *, stride: int = 1, groups: int = 1, dilation: int = 1,
    act: nn.Module | None = None,
) -> nn.Sequential:  # fmt: skip
    """Convolution, batch norm, activation."""
    padding = dilation * (kernel // 2)
    layer = nn.Conv2d(cin, cout, kernel, stride, padding, dilation, groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(cout), *([act] if act else []))


class InvertedResidual(nn.Module):
    """MobileNetV2's block; with `squeeze` MobileNetV3's."""

    def __init__(
        self, cin: int, cout: int, *, kernel: int = 3, stride: int = 1, expand: int = 4,
        act: type[nn.Module] = nn.ReLU6, squeeze: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        hidden = cin * expand
        self.expand = conv(cin, hidden, act=act()) if expand > 1 else nn.Identity()
        self.depthwise = conv(hidden, hidden, kernel, stride=stride, groups=hidden, act=act())
        self.squeeze = SqueezeExcite(hidden) if squeeze else nn.Identity()
        self.project = conv(hidden, cout)
        self.residual = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.squeeze(self.depthwise(self.expand(x))))
        return x + y if self.residual else y


class SqueezeExcite(nn.Module):
    """A gate per channel, hard-sigmoid, from the global average."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, channels // 4, 1)
        self.up = nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1))))
        return x * F.hardsigmoid(gate)


class MobileNetV2(nn.Module):
    """A backbone at 1/16 with a 1x1 head for class scores."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            conv(3, 16, 3, stride=2, act=nn.ReLU6()),
            InvertedResidual(16, 8, expand=1),
            InvertedResidual(8, 16, stride=2),
            InvertedResidual(16, 16),
            InvertedResidual(16, 24, stride=2),
            InvertedResidual(24, 24),
            InvertedResidual(24, 32, stride=2),
            InvertedResidual(32, 32),
            conv(32, 64, act=nn.ReLU6()),
            nn.Conv2d(64, CLASSES, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class LrAspp(nn.Module):
    """MobileNetV3 blocks (hard-swish, squeeze-excite) to 1/16 and the LR-ASPP head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 16, 3, stride=2, act=nn.Hardswish())
        self.low = nn.Sequential(
            InvertedResidual(16, 16, stride=2, act=nn.ReLU),
            InvertedResidual(16, 24, stride=2, act=nn.ReLU),
            InvertedResidual(24, 24, act=nn.ReLU),
        )
        self.high = nn.Sequential(
            InvertedResidual(24, 32, kernel=5, stride=2, act=nn.Hardswish, squeeze=True),
            InvertedResidual(32, 32, kernel=5, act=nn.Hardswish, squeeze=True),
            conv(32, 48, act=nn.Hardswish()),
        )
        self.branch = conv(48, 32, act=nn.ReLU())
        self.gate = nn.Conv2d(48, 32, 1, bias=False)
        self.low_scores = nn.Conv2d(24, CLASSES, 1)
        self.high_scores = nn.Conv2d(32, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        low = self.low(self.stem(x))
        high = self.high(low)
        gate = torch.sigmoid(self.gate(F.adaptive_avg_pool2d(high, 1)))
        wide = self.branch(high) * gate
        up = F.interpolate(wide, low.shape[2:], mode="bilinear", align_corners=False)
        return self.low_scores(low) + self.high_scores(up)


class MobileNetV2Fcn(nn.Module):
    """Blocks of MobileNetV2 to 1/8 and a head with a dense 3x3 convolution (arXiv 1411.4038)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            conv(3, 16, 3, stride=2, act=nn.ReLU6()),
            InvertedResidual(16, 16, stride=2),
            InvertedResidual(16, 24, stride=2),
            conv(24, 64, 3, act=nn.ReLU()),
            nn.Conv2d(64, CLASSES, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def separable(cin: int, cout: int, *, dilation: int = 1) -> nn.Sequential:
    """Depthwise 3x3 and 1x1 convolution, each with batch norm and ReLU."""
    return nn.Sequential(
        conv(cin, cin, 3, groups=cin, dilation=dilation, act=nn.ReLU()),
        conv(cin, cout, act=nn.ReLU()),
    )


class DeepLabV3Plus(nn.Module):
    """ASPP with separable convolutions at rates 6, 12, 18, image pooling, and the decoder."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.low = nn.Sequential(
            conv(3, 16, 3, stride=2, act=nn.ReLU6()), InvertedResidual(16, 16, stride=2)
        )
        self.high = nn.Sequential(
            InvertedResidual(16, 24, stride=2), InvertedResidual(24, 32, stride=2)
        )
        self.one = conv(32, width, act=nn.ReLU())
        self.rates = nn.ModuleList(separable(32, width, dilation=rate) for rate in (6, 12, 18))
        self.pooled = conv(32, width, act=nn.ReLU())
        self.project = conv(5 * width, width, act=nn.ReLU())
        self.shallow = conv(16, 12, act=nn.ReLU())
        self.decoder = nn.Sequential(separable(width + 12, width), separable(width, width))
        self.scores = nn.Conv2d(width, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        low = self.low(x)
        high = self.high(low)
        pooled = self.pooled(F.adaptive_avg_pool2d(high, 1))
        pooled = F.interpolate(pooled, high.shape[2:], mode="bilinear", align_corners=False)
        context = [self.one(high), *(rate(high) for rate in self.rates), pooled]
        y = self.project(torch.cat(context, 1))
        y = F.interpolate(y, low.shape[2:], mode="bilinear", align_corners=False)
        return self.scores(self.decoder(torch.cat([y, self.shallow(low)], 1)))


def save_as_user(network: nn.Module, path: Path) -> None:
    """Export with random weights and batch norm statistics, as an ONNX file."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.7, 1.3)
            nn.init.normal_(module.bias, 0.2, 0.3)
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.7, 1.5)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network.eval(), (torch.zeros(1, 3, *SIZE),), path, dynamo=True, external_data=False,
            input_names=["x"], output_names=["scores"], opset_version=18, verbose=False,
        )  # fmt: skip
