"""What the parsing networks of the paper's Table 3 rest on: a dilated ResNet-101 (He et al., arXiv
1512.03385), and DeepLabv2's classifier.
"""

import torch
from torch import Tensor, nn

from hmseg.families.blocks import Bottleneck, ConvBN

_BLOCKS = (3, 4, 23, 3)
_WIDTHS = (64, 128, 256, 512)
_RATES = (6, 12, 18, 24)


class ResNet101(nn.Module):
    """256, 512, 1024 and 2048 channels; the last stages have dilations in place of their strides.

    Without `deep_stem` it is a 7x7 and the stride is each stage's first 1x1's, as in Caffe; with it
    three 3x3, and the stride is the 3x3's.
    """

    CHANNELS = (256, 512, 1024, 2048)

    def __init__(
        self, strides: tuple[int, ...], dilations: tuple[int, ...], *, deep_stem: bool
    ) -> None:
        super().__init__()
        stem = (
            [ConvBN(3, 64, 3, stride=2), ConvBN(64, 64, 3), ConvBN(64, 128, 3)]
            if deep_stem
            else [ConvBN(3, 64, 7, stride=2)]
        )
        self.stem = nn.Sequential(*stem, nn.MaxPool2d(3, 2, 1))
        self.stages = nn.ModuleList()
        cin = 128 if deep_stem else 64
        rows = zip(_WIDTHS, _BLOCKS, strides, dilations, strict=True)
        for width, blocks, stride, dilation in rows:
            stage = nn.Sequential()
            for number in range(blocks):
                stage.append(
                    Bottleneck(
                        cin, width, 4 * width, stride=1 if number else stride, dilation=dilation,
                        stride_first=not deep_stem,
                    )
                )  # fmt: skip
                cin = 4 * width
            self.stages.append(stage)

    def forward(self, image: Tensor) -> list[Tensor]:
        """(N, 3, H, W) -> the four stages' maps."""
        x = self.stem(image)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


def at_stride_8() -> ResNet101:
    """DeepLabv2's."""
    return ResNet101((1, 2, 1, 1), (1, 1, 2, 4), deep_stem=False)


class AtrousScores(nn.Module):
    """DeepLabv2's ASPP: the sum of four 3x3 classifiers of different dilation."""

    def __init__(self, cin: int, num_classes: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Conv2d(cin, num_classes, 3, padding=rate, dilation=rate) for rate in _RATES
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, cin, H, W) -> (N, num_classes, H, W)."""
        first, *others = (branch(x) for branch in self.branches)
        total: Tensor = first
        for scores in others:
            total = torch.add(total, scores)
        return total
