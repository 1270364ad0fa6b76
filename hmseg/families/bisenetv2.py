"""BiSeNetV2 (arXiv 2004.02147): a wide detail branch and a thin semantic one, each gating the
other. Layers as in CoinCheung's port, with its head of 1024 channels (the published count lies at
about 660). Scores at stride 8; four auxiliary heads of 128 channels sit on the semantic stages.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hmseg.blocks import global_average
from hmseg.families.auxiliary import Auxiliary
from hmseg.families.blocks import ConvBN, ScoreHead, resize_nearest, size_of

_EXPANSION = 6
_STAGE_ENDS = (0, 2, 4, 8)  # of the semantic branch, and their channels
_STAGE_CHANNELS = (16, 32, 64, 128)


class Stem(nn.Module):
    """Two halvings: a 3x3, then a 3x3 beside a max pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.first = ConvBN(3, 16, 3, stride=2)
        self.conv = nn.Sequential(ConvBN(16, 8), ConvBN(8, 16, 3, stride=2))
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.fuse = ConvBN(32, 16, 3)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 16, H/4, W/4)."""
        x = self.first(image)
        y: Tensor = self.fuse(torch.cat([self.conv(x), self.pool(x)], dim=1))
        return y


class GatherExpand(nn.Module):
    """3x3, a depthwise 3x3 that makes six channels of each, 1x1; with a stride two depthwise."""

    def __init__(self, cin: int, cout: int, *, stride: int = 1) -> None:
        super().__init__()
        wide = _EXPANSION * cin
        if stride == 1:
            expand = [ConvBN(cin, wide, 3, groups=cin)]
            self.shortcut: nn.Module = nn.Identity()
        else:
            expand = [
                ConvBN(cin, wide, 3, stride=stride, groups=cin, act=None),
                ConvBN(wide, wide, 3, groups=wide),
            ]
            self.shortcut = nn.Sequential(
                ConvBN(cin, cin, 3, stride=stride, groups=cin, act=None),
                ConvBN(cin, cout, act=None),
            )
        self.body = nn.Sequential(ConvBN(cin, cin, 3), *expand, ConvBN(wide, cout, act=None))

    def forward(self, x: Tensor) -> Tensor:
        """(N, cin, H, W) -> (N, cout, H/stride, W/stride)."""
        return F.relu(self.body(x) + self.shortcut(x))


class ContextEmbedding(nn.Module):
    """The mean of the map, through batch norm and 1x1, added to it everywhere; 3x3."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.embed = ConvBN(channels, channels)
        self.conv = ConvBN(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same."""
        y: Tensor = self.conv(x + self.embed(self.norm(global_average(x))))
        return y


class Aggregation(nn.Module):
    """Each branch, at its own and at the other's resolution, gated by the other."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        c = channels
        self.detail = nn.Sequential(
            ConvBN(c, c, 3, groups=c, act=None), nn.Conv2d(c, c, 1, bias=False)
        )
        self.detail_low = nn.Sequential(ConvBN(c, c, 3, stride=2, act=None), nn.AvgPool2d(3, 2, 1))
        self.semantic_high = ConvBN(c, c, 3, act=None)
        self.semantic = nn.Sequential(
            ConvBN(c, c, 3, groups=c, act=None), nn.Conv2d(c, c, 1, bias=False)
        )
        self.fuse = ConvBN(c, c, 3)

    def forward(self, detail: Tensor, semantic: Tensor) -> Tensor:
        """(N, C, H, W) and (N, C, H/4, W/4) -> (N, C, H, W)."""
        size = size_of(detail)
        gate = torch.sigmoid(resize_nearest(self.semantic_high(semantic), size))
        high = self.detail(detail) * gate
        low = self.detail_low(detail) * torch.sigmoid(self.semantic(semantic))
        y: Tensor = self.fuse(high + resize_nearest(low, size))
        return y


class BiSeNetV2(nn.Module):
    """`head` is the classifier's width; H and W are multiples of 32."""

    auxiliary = (Auxiliary(),) * len(_STAGE_ENDS)

    def __init__(self, num_classes: int, head: int = 1024) -> None:
        super().__init__()
        self.detail = nn.Sequential(
            ConvBN(3, 64, 3, stride=2),
            ConvBN(64, 64, 3),
            ConvBN(64, 64, 3, stride=2),
            ConvBN(64, 64, 3),
            ConvBN(64, 64, 3),
            ConvBN(64, 128, 3, stride=2),
            ConvBN(128, 128, 3),
            ConvBN(128, 128, 3),
        )
        self.semantic = nn.Sequential(
            Stem(),
            GatherExpand(16, 32, stride=2),
            GatherExpand(32, 32),
            GatherExpand(32, 64, stride=2),
            GatherExpand(64, 64),
            GatherExpand(64, 128, stride=2),
            GatherExpand(128, 128),
            GatherExpand(128, 128),
            GatherExpand(128, 128),
            ContextEmbedding(128),
        )
        self.aggregation = Aggregation(128)
        self.head = nn.Sequential(
            ConvBN(128, head, 3), nn.Dropout(0.1), nn.Conv2d(head, num_classes, 1)
        )
        self.aux_stages = nn.ModuleList(
            ScoreHead(channels, 128, num_classes, dropout=0.1) for channels in _STAGE_CHANNELS
        )

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        """(N, 3, H, W) -> scores (N, K, H/8, W/8)."""
        detail, x = self.detail(image), image
        ends = []
        for number, layer in enumerate(self.semantic):
            x = layer(x)
            if number in _STAGE_ENDS:
                ends.append(x)
        scores: Tensor = self.head(self.aggregation(detail, x))
        if not self.training:
            return scores
        return scores, *(head(end) for head, end in zip(self.aux_stages, ends, strict=True))


NETWORKS = {"bisenetv2": BiSeNetV2}
