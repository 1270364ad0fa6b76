"""MobileNetV3 (Howard et al., "Searching for MobileNetV3", ICCV 2019) with three heads.

- Large with LR-ASPP, as the paper's Cityscapes model has it ("RF2": the last stage at half width,
  Table 8) and as torchvision has it: scores at 1/8 of the image's size.
- Small, at stride 32, with a plain convolution as its head.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from hmseg.blocks import global_average
from hmseg.families.blocks import ConvBN, resize, size_of
from hmseg.families.mobile_blocks import Activation, InvertedResidual, SqueezeExcite
from hmseg.widths import scale_channels

_EPS = 1e-3
R, H = nn.ReLU, nn.Hardswish


class Block(NamedTuple):
    """A row of the paper's tables 1 and 2."""

    kernel: int
    hidden: int
    cout: int
    excite: bool
    act: Activation
    stride: int = 1
    dilation: int = 1


# To 1/4 and 1/8 of the image's size, and from there to 1/16 with 112 channels.
LARGE_EIGHTH = (
    Block(3, 16, 16, False, R),
    Block(3, 64, 24, False, R, 2),
    Block(3, 72, 24, False, R),
    Block(5, 72, 40, True, R, 2),
    Block(5, 120, 40, True, R),
    Block(5, 120, 40, True, R),
)
LARGE_SIXTEENTH = (
    Block(3, 240, 80, False, H, 2),
    Block(3, 200, 80, False, H),
    Block(3, 184, 80, False, H),
    Block(3, 184, 80, False, H),
    Block(3, 480, 112, True, H),
    Block(3, 672, 112, True, H),
)
SMALL = (
    Block(3, 16, 16, True, R, 2),
    Block(3, 72, 24, False, R, 2),
    Block(3, 88, 24, False, R),
    Block(5, 96, 40, True, H, 2),
    Block(5, 240, 40, True, H),
    Block(5, 240, 40, True, H),
    Block(5, 120, 48, True, H),
    Block(5, 144, 48, True, H),
    Block(5, 288, 96, True, H, 2),
    Block(5, 576, 96, True, H),
    Block(5, 576, 96, True, H),
)


def large_tail(first_hidden: int, cout: int) -> tuple[Block, ...]:
    """The last stage at stride 1 with dilation instead of at stride 2."""
    return (
        Block(5, first_hidden, cout, True, H, dilation=2),
        Block(5, cout * 6, cout, True, H, dilation=2),
        Block(5, cout * 6, cout, True, H, dilation=2),
    )


def _excite(hidden: int) -> SqueezeExcite:
    return SqueezeExcite(hidden, scale_channels(hidden, 0.25))


def make_blocks(cin: int, blocks: Iterable[Block]) -> nn.Sequential:
    """The rows as modules."""
    modules = []
    for b in blocks:
        modules.append(
            InvertedResidual(
                cin, b.hidden, b.cout, b.kernel, stride=b.stride, dilation=b.dilation, act=b.act,
                excite=_excite if b.excite else None, eps=_EPS,
            )
        )  # fmt: skip
        cin = b.cout
    return nn.Sequential(*modules)


def stem() -> ConvBN:
    """The first convolution, at stride 2."""
    return ConvBN(3, 16, 3, stride=2, act=H, eps=_EPS)


class LargeLRASPP(nn.Module):
    """Images (N, 3, H, W) to scores (N, num_classes, H/8, W/8).

    `paper`: the last stage at half width; the gate is an average over windows of 49x49 at strides
    16 and 20 where the map has as many pixels (that of 1025x2049 has), resized with aligned
    corners; the map at 1/8 is read behind its last block. Else as torchvision's
    lraspp_mobilenet_v3_large: full width, one gate for the whole map, the map at 1/8 read behind
    its first block.
    """

    def __init__(self, num_classes: int, *, paper: bool) -> None:
        super().__init__()
        self.paper = paper
        taken = len(LARGE_EIGHTH) if paper else 4
        hidden, width = (336, 80) if paper else (672, 160)
        self.eighth = nn.Sequential(stem(), make_blocks(16, LARGE_EIGHTH[:taken]))
        self.sixteenth = nn.Sequential(
            make_blocks(40, (*LARGE_EIGHTH[taken:], *LARGE_SIXTEENTH, *large_tail(hidden, width))),
            ConvBN(width, width * 6, act=H, eps=_EPS),
        )
        self.project = ConvBN(width * 6, 128)
        self.gate = nn.Sequential(nn.Conv2d(width * 6, 128, 1, bias=False), nn.Sigmoid())
        self.scores_low = nn.Conv2d(128, num_classes, 1)
        self.scores_high = nn.Conv2d(40, num_classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Scores at 1/8 of the image's size."""
        high = self.eighth(image)
        low = self.sixteenth(high)
        y = resize(self.project(low) * self._gate(low), size_of(high), align_corners=self.paper)
        scores: Tensor = self.scores_low(y) + self.scores_high(high)
        return scores

    def _gate(self, low: Tensor) -> Tensor:
        if not self.paper or min(low.shape[-2:]) < 49:
            gate: Tensor = self.gate(global_average(low))
            return gate
        means = F.avg_pool2d(low, 49, (16, 20))
        return resize(self.gate(means), size_of(low), align_corners=True)


class SmallPlain(nn.Module):
    """Images (N, 3, H, W) to scores (N, num_classes, H/32, W/32)."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(stem(), make_blocks(16, SMALL), ConvBN(96, 576, act=H, eps=_EPS))
        self.head = nn.Sequential(ConvBN(576, 128, 3, act=H), nn.Conv2d(128, num_classes, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Scores at 1/32 of the image's size."""
        scores: Tensor = self.head(self.trunk(image))
        return scores


NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "lraspp-mobilenet-v3-large": partial(LargeLRASPP, paper=True),
    "lraspp-mobilenet-v3-large-torchvision": partial(LargeLRASPP, paper=False),
    "mobilenet-v3-small": SmallPlain,
}
