"""DeepLabV3 and V3+ (Chen et al., "Encoder-decoder with atrous separable convolution for semantic
image segmentation", ECCV 2018) on MobileNetV2 (Sandler et al., CVPR 2018) at stride 16.

Three variants: the small one of TensorFlow's model zoo (neither rates nor decoder: scores at 1/16
of the image's size), and V3+ with dense or with separable 3x3 convolutions (scores at 1/4).
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from hmseg.blocks import InvertedResidual, global_average
from hmseg.families.blocks import ConvBN, resize, size_of
from hmseg.families.mobile_blocks import separable

# (expansion, channels, blocks, stride of the first block, dilation of the first, of the others)
_FOURTH = ((1, 16, 1, 1, 1, 1), (6, 24, 2, 2, 1, 1))
_SIXTEENTH = (
    (6, 32, 3, 2, 1, 1),
    (6, 64, 4, 2, 1, 1),
    (6, 96, 3, 1, 1, 1),
    (6, 160, 3, 1, 1, 2),
    (6, 320, 1, 1, 2, 2),
)
_RATES = (6, 12, 18)
_WIDTH = 256


def _stages(cin: int, rows: tuple[tuple[int, int, int, int, int, int], ...]) -> nn.Sequential:
    blocks = []
    for expansion, cout, count, first_stride, first_dilation, dilation in rows:
        for n in range(count):
            blocks.append(
                InvertedResidual(
                    cin, cout, expansion=expansion, kernel=3,
                    stride=first_stride if n == 0 else 1,
                    dilation=first_dilation if n == 0 else dilation,
                )
            )  # fmt: skip
            cin = cout
    return nn.Sequential(*blocks)


class _ImagePooling(nn.Module):
    """The mean of the whole map, at every pixel of it."""

    def __init__(self, cin: int) -> None:
        super().__init__()
        self.layer = ConvBN(cin, _WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        mean: Tensor = self.layer(global_average(x))
        return mean.expand(-1, -1, x.shape[-2], x.shape[-1])


class _Pyramid(nn.Module):
    """Branches on one map, joined."""

    def __init__(self, branches: list[nn.Module]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)
        self.fuse = ConvBN(_WIDTH * len(branches), _WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fuse(torch.cat([branch(x) for branch in self.branches], dim=1))
        return y


class DeepLabV3(nn.Module):
    """Images (N, 3, H, W) to scores (N, num_classes, H/16, W/16)."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem = ConvBN(3, 32, 3, stride=2, act=nn.ReLU6)
        self.trunk = nn.Sequential(_stages(32, _FOURTH), _stages(24, _SIXTEENTH))
        self.pyramid = _Pyramid([ConvBN(320, _WIDTH), _ImagePooling(320)])
        self.classify = nn.Conv2d(_WIDTH, num_classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Scores at 1/16 of the image's size."""
        scores: Tensor = self.classify(self.pyramid(self.trunk(self.stem(image))))
        return scores


class DeepLabV3Plus(nn.Module):
    """Images (N, 3, H, W) to scores (N, num_classes, H/4, W/4)."""

    def __init__(self, num_classes: int, *, separable_convolutions: bool) -> None:
        super().__init__()
        self.fourth = nn.Sequential(ConvBN(3, 32, 3, stride=2, act=nn.ReLU6), _stages(32, _FOURTH))
        self.sixteenth = _stages(24, _SIXTEENTH)
        branches: list[nn.Module] = [ConvBN(320, _WIDTH)]
        for rate in _RATES:
            branches.append(
                separable(320, _WIDTH, dilation=rate)
                if separable_convolutions
                else ConvBN(320, _WIDTH, 3, dilation=rate)
            )
        self.pyramid = nn.Sequential(_Pyramid([*branches, _ImagePooling(320)]), nn.Dropout(0.1))
        self.low_level = ConvBN(24, 48)
        joined = 48 + _WIDTH
        self.decoder = (
            nn.Sequential(separable(joined, _WIDTH), separable(_WIDTH, _WIDTH))
            if separable_convolutions
            else ConvBN(joined, _WIDTH, 3)
        )
        self.classify = nn.Conv2d(_WIDTH, num_classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Scores at 1/4 of the image's size."""
        low = self.fourth(image)
        high = resize(self.pyramid(self.sixteenth(low)), size_of(low))
        joined = torch.cat([self.low_level(low), high], dim=1)
        scores: Tensor = self.classify(self.decoder(joined))
        return scores


NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "deeplabv3-mobilenet-v2": DeepLabV3,
    "deeplabv3plus-mobilenet-v2": partial(DeepLabV3Plus, separable_convolutions=False),
    "deeplabv3plus-mobilenet-v2-separable": partial(DeepLabV3Plus, separable_convolutions=True),
}
