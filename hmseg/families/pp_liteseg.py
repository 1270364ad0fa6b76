"""PP-LiteSeg (arXiv 2204.02681): STDC, a small pyramid, and fusion gated by spatial attention.
Layers as in PaddleSeg. Scores at stride 8; the auxiliary heads sit on the fused maps at 16 and 32.
"""

from functools import partial

import torch
from torch import Tensor, nn

from hmseg.families.auxiliary import Auxiliary
from hmseg.families.blocks import ConvBN, ScoreHead, resize, size_of
from hmseg.families.stdc import STDC, STDC1, STDC2


class SimplePyramid(nn.Module):
    """Means over 1x1, 2x2 and 4x4 bins, each through a 1x1, resized and summed; 3x3."""

    BINS = (1, 2, 4)

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(bins), ConvBN(cin, cout)) for bins in self.BINS
        )
        self.fuse = ConvBN(cout, cout, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(N, cin, H, W) -> (N, cout, H, W)."""
        first, *others = (resize(level(x), size_of(x)) for level in self.levels)
        total = first
        for level in others:
            total = total + level
        y: Tensor = self.fuse(total)
        return y


class AttentionFusion(nn.Module):
    """UAFM: a map `x` of the backbone and one from below, `y`, weighed by a gate for each pixel
    from the means and maxima over their channels."""

    def __init__(self, cx: int, cy: int, cout: int) -> None:
        super().__init__()
        self.conv = ConvBN(cx, cy, 3)
        self.gate = nn.Sequential(ConvBN(4, 2, 3), ConvBN(2, 1, 3, act=None), nn.Sigmoid())
        self.fuse = ConvBN(cy, cout, 3)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """(N, cx, H, W), (N, cy, h, w) -> (N, cout, H, W)."""
        x = self.conv(x)
        y = resize(y, size_of(x))
        seen = [f(m) for m in (x, y) for f in (_channel_mean, _channel_max)]
        gate = self.gate(torch.cat(seen, dim=1))
        fused: Tensor = self.fuse(x * gate + y * (1 - gate))
        return fused


def _channel_mean(x: Tensor) -> Tensor:
    return x.mean(dim=1, keepdim=True)


def _channel_max(x: Tensor) -> Tensor:
    return x.amax(dim=1, keepdim=True)


class PPLiteSeg(nn.Module):
    """`widths` are the decoder's at strides 32, 16 and 8; H and W are multiples of 128, so that
    the pyramid's bins divide."""

    auxiliary = (Auxiliary(), Auxiliary())

    def __init__(
        self, num_classes: int, repeats: tuple[int, ...], widths: tuple[int, int, int]
    ) -> None:
        super().__init__()
        self.backbone = STDC(repeats)
        self.pyramid = SimplePyramid(STDC.CHANNELS[-1], 128)
        ins = (128, *widths)
        self.fusions = nn.ModuleList(map(AttentionFusion, reversed(STDC.CHANNELS), ins, widths))
        self.head = nn.Sequential(
            ConvBN(widths[-1], widths[-1], 3), nn.Conv2d(widths[-1], num_classes, 1, bias=False)
        )
        self.aux_16 = ScoreHead(widths[1], 64, num_classes)
        self.aux_32 = ScoreHead(widths[0], 64, num_classes)

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        """(N, 3, H, W) -> scores (N, K, H/8, W/8)."""
        maps = self.backbone(image)
        fused = [self.pyramid(maps[-1])]
        for x, fusion in zip(reversed(maps), self.fusions, strict=True):
            fused.append(fusion(x, fused[-1]))
        scores: Tensor = self.head(fused[-1])
        if not self.training:
            return scores
        return scores, self.aux_16(fused[-2]), self.aux_32(fused[-3])


NETWORKS = {
    "pp-liteseg-t": partial(PPLiteSeg, repeats=STDC1, widths=(128, 64, 32)),
    "pp-liteseg-b": partial(PPLiteSeg, repeats=STDC2, widths=(128, 96, 64)),
}
