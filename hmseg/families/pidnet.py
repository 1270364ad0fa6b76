"""PIDNet (arXiv 2206.02066): DDRNet's two branches and a third for boundaries, which decides where
detail and where context counts. Layers as in the authors' repository. Scores at stride 8; the
auxiliary heads sit on P half-way and on D before its last stage (edges). The authors' further term,
the scores' loss at what D finds to be edges, is not here.

Branches: P (detail) and D (boundaries) at stride 8, I (context) at 16, 32, 64.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hmseg.families.auxiliary import Auxiliary
from hmseg.families.blocks import (
    BasicBlock,
    Bottleneck,
    ConvBN,
    PreActConv,
    basic_stage,
    resize,
    size_of,
)
from hmseg.families.ddrnet import PreActHead, pyramid_levels, stem


class Pag(nn.Module):
    """Takes from `y`, resized, as much as the two maps agree, from `x` the rest."""

    def __init__(self, channels: int, mid: int) -> None:
        super().__init__()
        self.embed_x = ConvBN(channels, mid, act=None)
        self.embed_y = ConvBN(channels, mid, act=None)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """(N, C, H, W), (N, C, h, w) -> (N, C, H, W)."""
        size = size_of(x)
        alike = self.embed_x(x) * resize(self.embed_y(y), size)
        gate = torch.sigmoid(alike.sum(dim=1, keepdim=True))
        return (1 - gate) * x + gate * resize(y, size)


class ParallelPyramid(nn.Module):
    """PAPPM: the levels are added to the first and go through one grouped 3x3 together."""

    def __init__(self, cin: int, mid: int, cout: int) -> None:
        super().__init__()
        self.levels = pyramid_levels(cin, mid)
        others = len(self.levels) - 1
        self.process = PreActConv(mid * others, mid * others, 3, groups=others)
        self.compress = PreActConv(mid * (others + 1), cout)
        self.shortcut = PreActConv(cin, cout)

    def forward(self, x: Tensor) -> Tensor:
        """(N, cin, H, W) -> (N, cout, H, W)."""
        first = self.levels[0](x)
        others = [resize(level(x), size_of(x)) + first for level in self.levels[1:]]
        parts = [first, self.process(torch.cat(others, dim=1))]
        y: Tensor = self.compress(torch.cat(parts, dim=1)) + self.shortcut(x)
        return y


class LightBag(nn.Module):
    """P where there is a boundary, I elsewhere."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_p = ConvBN(channels, channels, act=None)
        self.conv_i = ConvBN(channels, channels, act=None)

    def forward(self, p: Tensor, i: Tensor, d: Tensor) -> Tensor:
        """Three maps (N, C, H, W) -> one."""
        edge = torch.sigmoid(d)
        y: Tensor = self.conv_p((1 - edge) * i + p) + self.conv_i(i + edge * p)
        return y


class PIDNetS(nn.Module):
    """The small one (m 2, n 3, 32 channels); H and W are multiples of 64."""

    auxiliary = (Auxiliary(0.4), Auxiliary(20.0, "edges"))

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.stem = stem(32)
        self.stage1 = basic_stage(32, 32, 2)
        self.stage2 = basic_stage(32, 64, 2, stride=2)
        self.i3 = basic_stage(64, 128, 3, stride=2)
        self.i4 = basic_stage(128, 256, 3, stride=2)
        self.i5 = nn.Sequential(
            Bottleneck(256, 256, 512, stride=2), Bottleneck(512, 256, 512, act=False)
        )
        self.p3 = basic_stage(64, 64, 2)
        self.p4 = basic_stage(64, 64, 2)
        self.p5 = Bottleneck(64, 64, 128, act=False)
        self.d3 = BasicBlock(64, 32, act=False)
        self.d4 = Bottleneck(32, 32, 64, act=False)
        self.d5 = Bottleneck(64, 64, 128, act=False)
        self.i3_to_p, self.pag3 = ConvBN(128, 64, act=None), Pag(64, 32)
        self.i4_to_p, self.pag4 = ConvBN(256, 64, act=None), Pag(64, 32)
        self.i3_to_d = ConvBN(128, 32, 3, act=None)
        self.i4_to_d = ConvBN(256, 64, 3, act=None)
        self.pyramid = ParallelPyramid(512, 96, 128)
        self.bag = LightBag(128)
        self.head = PreActHead(128, 128, num_classes)
        self.aux_p = PreActHead(64, 128, num_classes)
        self.aux_d = PreActHead(64, 32, 1)

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        """(N, 3, H, W) -> scores (N, K, H/8, W/8)."""
        x = F.relu(self.stage2(F.relu(self.stage1(self.stem(image)))))
        size = size_of(x)
        p, i, d = self.p3(x), F.relu(self.i3(x)), self.d3(x)
        p = self.pag3(p, self.i3_to_p(i))
        d = d + resize(self.i3_to_d(i), size)
        p_half_way = p
        p, i, d = self.p4(F.relu(p)), F.relu(self.i4(i)), self.d4(F.relu(d))
        p = self.pag4(p, self.i4_to_p(i))
        d = d + resize(self.i4_to_d(i), size)
        d_before = d
        p, i, d = self.p5(F.relu(p)), self.i5(i), self.d5(F.relu(d))
        scores: Tensor = self.head(self.bag(p, resize(self.pyramid(i), size), d))
        if not self.training:
            return scores
        return scores, self.aux_p(p_half_way), self.aux_d(d_before)


NETWORKS = {"pidnet-s": PIDNetS}
