"""ICNet (arXiv 1704.08545) at half width, as released: the deep part sees the image at 1/4, two
shallow ones see it at 1/2 and in full. Layers as in the authors' prototxt. Scores at stride 4;
auxiliary heads sit on what is fused at strides 16 and 8, before the higher maps are added.

Caffe's bilinear resize aligns corners, and its pyramid's pools overlap; here they are adaptive.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from hmseg.families.auxiliary import Auxiliary
from hmseg.families.blocks import Bottleneck, ConvBN, Size, resize, size_of

_BINS = (1, 2, 3, 6)


def enlarge(x: Tensor, size: Size) -> Tensor:
    """Caffe's."""
    return resize(x, size, align_corners=True)


def shrink(x: Tensor) -> Tensor:
    """To half the size, without smoothing."""
    height, width = size_of(x)
    return enlarge(x, (height // 2, width // 2))


def stage(cin: int, cout: int, blocks: int, *, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """Bottlenecks, the first with the stride (in its first 1x1)."""
    ins, strides = (cin, *[cout] * (blocks - 1)), (stride, *[1] * (blocks - 1))
    return nn.Sequential(
        *(
            Bottleneck(c, cout // 4, cout, stride=s, dilation=dilation, stride_first=True)
            for c, s in zip(ins, strides, strict=True)
        )
    )


class CascadeFusion(nn.Module):
    """The lower map, twice as large, through a dilated 3x3, plus a 1x1 of the higher one, ReLU."""

    def __init__(self, clow: int, chigh: int) -> None:
        super().__init__()
        self.low = ConvBN(clow, 128, 3, dilation=2, act=None)
        self.high = ConvBN(chigh, 128, act=None)

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """(N, clow, H/2, W/2), (N, chigh, H, W) -> (N, 128, H, W)."""
        y: Tensor = self.low(enlarge(low, size_of(high))) + self.high(high)
        return F.relu(y)


class ICNet(nn.Module):
    """H and W are multiples of 32."""

    auxiliary = (Auxiliary(0.4), Auxiliary(0.16))

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.middle = nn.Sequential(
            ConvBN(3, 32, 3, stride=2),
            ConvBN(32, 32, 3),
            ConvBN(32, 64, 3),
            nn.MaxPool2d(3, 2, 1),
            stage(64, 128, 3),
            stage(128, 256, 1, stride=2),
        )
        self.quarter = nn.Sequential(
            stage(256, 256, 3), stage(256, 512, 6, dilation=2), stage(512, 1024, 3, dilation=4)
        )
        self.pools = nn.ModuleList(nn.AdaptiveAvgPool2d(bins) for bins in _BINS)
        self.compress = ConvBN(1024, 256)
        self.full = nn.Sequential(
            ConvBN(3, 32, 3, stride=2), ConvBN(32, 32, 3, stride=2), ConvBN(32, 64, 3, stride=2)
        )
        self.fuse16 = CascadeFusion(256, 256)
        self.fuse8 = CascadeFusion(128, 64)
        self.classify = nn.Conv2d(128, num_classes, 1)
        self.aux_8 = nn.Conv2d(128, num_classes, 1)
        self.aux_16 = nn.Conv2d(256, num_classes, 1)

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        """(N, 3, H, W) -> scores (N, K, H/4, W/4)."""
        half = self.middle(shrink(image))
        deep = self.quarter(shrink(half))
        total = deep
        for pool in self.pools:
            total = total + enlarge(pool(deep), size_of(deep))
        compressed = self.compress(total)
        fused16 = self.fuse16(compressed, half)
        x = self.fuse8(fused16, self.full(image))
        height, width = size_of(x)
        scores: Tensor = self.classify(enlarge(x, (2 * height, 2 * width)))
        if not self.training:
            return scores
        fused8 = enlarge(fused16, (height, width))
        return scores, self.aux_8(fused8), self.aux_16(enlarge(compressed, size_of(half)))


NETWORKS = {"icnet": ICNet}
