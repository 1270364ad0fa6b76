"""A U-Net on EfficientNet-B0 (Tan and Le, "EfficientNet: rethinking model scaling for convolutional
neural networks", ICML 2019), as libraries of segmentation networks build it.

Scores at the image's size.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hmseg.families.blocks import ConvBN
from hmseg.families.mobile_blocks import InvertedResidual, SqueezeExcite

_EPS = 1e-3


class Stage(NamedTuple):
    """A row of the paper's table 1."""

    expansion: int
    cout: int
    blocks: int
    stride: int
    kernel: int


B0 = (
    Stage(1, 16, 1, 1, 3),
    Stage(6, 24, 2, 2, 3),
    Stage(6, 40, 2, 2, 5),
    Stage(6, 80, 3, 2, 3),
    Stage(6, 112, 3, 1, 5),
    Stage(6, 192, 4, 2, 5),
    Stage(6, 320, 1, 1, 3),
)
# Stages (from 1) whose outputs the decoder reads, with the stem's at 1/2: 1/4, 1/8, 1/16 and 1/32.
_TAPS = (2, 3, 5, 7)
_DECODER = (256, 128, 64, 32, 16)


def _block(cin: int, stage: Stage, stride: int) -> InvertedResidual:
    """A quarter of the block's input, not of its hidden channels, stands between the two
    convolutions of its gate."""

    def excite(hidden: int) -> SqueezeExcite:
        return SqueezeExcite(hidden, max(1, cin // 4), act=nn.SiLU, gate=nn.Sigmoid)

    return InvertedResidual(
        cin, cin * stage.expansion, stage.cout, stage.kernel, stride=stride, act=nn.SiLU,
        excite=excite, eps=_EPS,
    )  # fmt: skip


class _Up(nn.Module):
    """Twice the size, nearest, beside the encoder's map of that size; two convolutions."""

    def __init__(self, cin: int, skip: int, cout: int) -> None:
        super().__init__()
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")
        self.layers = nn.Sequential(ConvBN(cin + skip, cout, 3), ConvBN(cout, cout, 3))

    def forward(self, x: Tensor, skip: Tensor | None) -> Tensor:
        x = self.upsample(x)
        if skip is not None:
            x = torch.cat([x, skip], dim=1)
        y: Tensor = self.layers(x)
        return y


class EfficientNetUNet(nn.Module):
    """Images (N, 3, H, W), sides multiples of 32, to scores (N, num_classes, H, W)."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem = ConvBN(3, 32, 3, stride=2, act=nn.SiLU, eps=_EPS)
        self.stages = nn.ModuleList()
        cin = 32
        for stage in B0:
            blocks = []
            for n in range(stage.blocks):
                blocks.append(_block(cin, stage, stage.stride if n == 0 else 1))
                cin = stage.cout
            self.stages.append(nn.Sequential(*blocks))
        skips = [B0[tap - 1].cout for tap in _TAPS[-2::-1]] + [32, 0]
        self.decoder = nn.ModuleList(map(_Up, [cin, *_DECODER[:-1]], skips, _DECODER))
        self.scores = nn.Conv2d(_DECODER[-1], num_classes, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """Scores at the image's size."""
        x = self.stem(image)
        maps = [x]
        for number, stage in enumerate(self.stages, 1):
            x = stage(x)
            if number in _TAPS:
                maps.append(x)
        for up, skip in zip(self.decoder, [*maps[-2::-1], None], strict=True):
            x = up(x, skip)
        scores: Tensor = self.scores(x)
        return scores


NETWORKS: dict[str, Callable[[int], nn.Module]] = {"efficientnet-b0-unet": EfficientNetUNet}
