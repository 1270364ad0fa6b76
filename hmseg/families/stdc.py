"""STDC-Seg (arXiv 2104.13188): short-term dense concatenation, with BiSeNet's context path and
fusion. Layers as in the authors' repository. Scores at stride 8. For training, auxiliary heads sit
on the context maps at strides 8 and 16, and one for edges ("detail") on the backbone's at 8.
"""

from functools import partial

import torch
from torch import Tensor, nn

from hmseg.families.auxiliary import Auxiliary
from hmseg.families.bisenetv1 import ContextPath, FeatureFusion
from hmseg.families.blocks import ConvBN, ScoreHead, size_of

STDC1 = (2, 2, 2)
STDC2 = (4, 5, 3)


class DenseConcat(nn.Module):
    """1x1, then three 3x3, each half as wide as what it reads, all four concatenated.

    With stride 2 a depthwise convolution halves what the 3x3 read, an average pooling the 1x1's
    own share.
    """

    def __init__(self, cin: int, cout: int, *, stride: int = 1) -> None:
        super().__init__()
        half = cout // 2
        self.first = ConvBN(cin, half)
        if stride == 1:
            self.down: nn.Module = nn.Identity()
            self.pool: nn.Module = nn.Identity()
        else:
            self.down = ConvBN(half, half, 3, stride=stride, groups=half, act=None)
            self.pool = nn.AvgPool2d(3, stride, 1)
        self.rest = nn.ModuleList(
            [
                ConvBN(half, cout // 4, 3),
                ConvBN(cout // 4, cout // 8, 3),
                ConvBN(cout // 8, cout // 8, 3),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, cin, H, W) -> (N, cout, H/stride, W/stride)."""
        x = self.first(x)
        parts = [self.pool(x)]
        x = self.down(x)
        for conv in self.rest:
            x = conv(x)
            parts.append(x)
        return torch.cat(parts, dim=1)


class STDC(nn.Module):
    """The backbone: 256, 512 and 1024 channels at strides 8, 16 and 32."""

    CHANNELS = (256, 512, 1024)

    def __init__(self, repeats: tuple[int, ...]) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvBN(3, 32, 3, stride=2), ConvBN(32, 64, 3, stride=2))
        self.stages = nn.ModuleList()
        cin = 64
        for cout, count in zip(self.CHANNELS, repeats, strict=True):
            first = DenseConcat(cin, cout, stride=2)
            others = (DenseConcat(cout, cout) for _ in range(count - 1))
            self.stages.append(nn.Sequential(first, *others))
            cin = cout

    def forward(self, image: Tensor) -> list[Tensor]:
        """(N, 3, H, W) -> three maps."""
        x = self.stem(image)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class STDCSeg(nn.Module):
    """H and W are multiples of 32."""

    auxiliary = (Auxiliary(), Auxiliary(), Auxiliary(target="edges"))

    def __init__(self, num_classes: int, repeats: tuple[int, ...]) -> None:
        super().__init__()
        c8, c16, c32 = STDC.CHANNELS
        self.backbone = STDC(repeats)
        self.context = ContextPath(c16, c32, nearest=True)
        self.fusion = FeatureFusion(c8 + 128, 256, reduction=4)
        self.head = nn.Sequential(ConvBN(256, 256, 3), nn.Conv2d(256, num_classes, 1, bias=False))
        self.aux_8 = ScoreHead(128, 64, num_classes)
        self.aux_16 = ScoreHead(128, 64, num_classes)
        self.aux_detail = ScoreHead(c8, 64, 1)

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        """(N, 3, H, W) -> scores (N, K, H/8, W/8)."""
        map8, map16, map32 = self.backbone(image)
        context, context16 = self.context(map16, map32, size_of(map8))
        scores: Tensor = self.head(self.fusion(map8, context))
        if not self.training:
            return scores
        return scores, self.aux_8(context), self.aux_16(context16), self.aux_detail(map8)


NETWORKS = {
    "stdc1-seg": partial(STDCSeg, repeats=STDC1),
    "stdc2-seg": partial(STDCSeg, repeats=STDC2),
}
