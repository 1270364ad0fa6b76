"""BiSeNet (arXiv 1808.00897): a shallow spatial path beside a deep context path. Scores at 1/8.

Layers as in the author's TorchSeg ("speed" configurations), on Xception39 (the paper's fast row)
and on ResNet-18; `-nearest` is the variant of CoinCheung's port, which many use: a wider head, and
nearest resizing inside. Their auxiliary heads sit on the two context maps.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from hmseg.blocks import global_average
from hmseg.families.auxiliary import Auxiliary
from hmseg.families.blocks import (
    ConvBN,
    ResNet18,
    ScoreHead,
    Size,
    resize,
    resize_nearest,
    size_of,
)


class Separable(nn.Sequential):
    """Depthwise 3x3 with nothing behind it, then 1x1 with batch norm."""

    def __init__(self, cin: int, cout: int, *, stride: int = 1, act: bool = True) -> None:
        super().__init__(
            nn.Conv2d(cin, cin, 3, stride, 1, groups=cin, bias=False),
            ConvBN(cin, cout, act=nn.ReLU if act else None),
        )


class XceptionBlock(nn.Module):
    """Three separable convolutions to `mid`, `mid` and four times `mid` channels."""

    def __init__(self, cin: int, mid: int, *, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            Separable(cin, mid, stride=stride),
            Separable(mid, mid),
            Separable(mid, 4 * mid, act=False),
        )
        same = stride == 1 and cin == 4 * mid
        self.shortcut = nn.Identity() if same else Separable(cin, 4 * mid, stride=stride, act=False)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(N, cin, H, W) -> (N, 4 mid, H/stride, W/stride)."""
        y: Tensor = self.act(self.body(x) + self.shortcut(x))
        return y


class Xception39(nn.Module):
    """64, 128 and 256 channels at strides 8, 16 and 32."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvBN(3, 8, 3, stride=2), nn.MaxPool2d(3, 2, 1))
        self.stages = nn.ModuleList()
        for cin, mid, blocks in ((8, 16, 4), (64, 32, 8), (128, 64, 4)):
            first = XceptionBlock(cin, mid, stride=2)
            others = (XceptionBlock(4 * mid, mid) for _ in range(blocks - 1))
            self.stages.append(nn.Sequential(first, *others))

    def forward(self, image: Tensor) -> list[Tensor]:
        """(N, 3, H, W) -> three maps."""
        x = self.stem(image)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


class AttentionRefinement(nn.Module):
    """3x3, times a gate from its own mean."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.conv = ConvBN(cin, cout, 3)
        self.gate = nn.Sequential(ConvBN(cout, cout, act=None), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """(N, cin, H, W) -> (N, cout, H, W)."""
        y = self.conv(x)
        refined: Tensor = y * self.gate(global_average(y))
        return refined


class ContextPath(nn.Module):
    """From the maps at strides 16 and 32 to 128 channels at stride 8, by way of stride 16."""

    def __init__(self, c16: int, c32: int, *, nearest: bool) -> None:
        super().__init__()
        self.resize: Callable[[Tensor, Size], Tensor] = (
            resize_nearest if nearest else partial(resize, align_corners=True)
        )
        self.context = ConvBN(c32, 128)
        self.refine32 = AttentionRefinement(c32, 128)
        self.refine16 = AttentionRefinement(c16, 128)
        self.conv32 = ConvBN(128, 128, 3)
        self.conv16 = ConvBN(128, 128, 3)

    def forward(self, map16: Tensor, map32: Tensor, size8: Size) -> tuple[Tensor, Tensor]:
        """(N, c16, H/16, W/16), (N, c32, H/32, W/32) -> (N, 128, H/8, W/8), and the same at 1/16,
        which the auxiliary heads read."""
        x = self.refine32(map32) + self.context(global_average(map32))
        x16 = self.conv32(self.resize(x, size_of(map16)))
        x = self.refine16(map16) + x16
        return self.conv16(self.resize(x, size8)), x16


class FeatureFusion(nn.Module):
    """1x1 of both paths, plus itself times a gate of two 1x1 on its mean."""

    def __init__(self, cin: int, cout: int, reduction: int) -> None:
        super().__init__()
        self.fuse = ConvBN(cin, cout)
        self.gate = nn.Sequential(
            nn.Conv2d(cout, cout // reduction, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(cout // reduction, cout, 1, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, detail: Tensor, context: Tensor) -> Tensor:
        """Two maps of one size -> (N, cout, H, W)."""
        y = self.fuse(torch.cat([detail, context], dim=1))
        fused: Tensor = y + y * self.gate(global_average(y))
        return fused


class BiSeNetV1(nn.Module):
    """`head` is the classifier's width, `aux` that of the heads on the context maps; H and W are
    multiples of 32."""

    auxiliary = (Auxiliary(), Auxiliary())

    def __init__(
        self,
        num_classes: int,
        backbone: str,
        *,
        head: int = 64,
        aux: int = 256,
        nearest: bool = False,
    ) -> None:
        super().__init__()
        self.spatial = nn.Sequential(
            ConvBN(3, 64, 7, stride=2),
            ConvBN(64, 64, 3, stride=2),
            ConvBN(64, 64, 3, stride=2),
            ConvBN(64, 128),
        )
        if backbone == "x39":
            self.backbone: nn.Module = Xception39()
            c16, c32 = 128, 256
        else:
            self.backbone = ResNet18()
            c16, c32 = 256, 512
        self.context = ContextPath(c16, c32, nearest=nearest)
        self.fusion = FeatureFusion(256, 256, reduction=1)
        self.head = nn.Sequential(ConvBN(256, head, 3), nn.Conv2d(head, num_classes, 1))
        self.aux_8 = ScoreHead(128, aux, num_classes)
        self.aux_16 = ScoreHead(128, aux, num_classes)

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        """(N, 3, H, W) -> scores (N, K, H/8, W/8)."""
        detail = self.spatial(image)
        map16, map32 = self.backbone(image)[-2:]
        context, context16 = self.context(map16, map32, size_of(detail))
        scores: Tensor = self.head(self.fusion(detail, context))
        if not self.training:
            return scores
        return scores, self.aux_8(context), self.aux_16(context16)


NETWORKS = {
    "bisenetv1-x39": partial(BiSeNetV1, backbone="x39"),
    "bisenetv1-r18": partial(BiSeNetV1, backbone="r18"),
    "bisenetv1-r18-nearest": partial(BiSeNetV1, backbone="r18", head=256, aux=64, nearest=True),
}
