"""CE2P (Ruan et al., "Devil in the details: towards accurate single and multiple human parsing",
AAAI 2019): a pyramid on ResNet-101, a decoder at stride 4, and edges that are found beside it.
Layers as in the authors' repository. Scores at stride 4.

Auxiliary outputs are the decoder's own scores and the edges, for which the authors have two scores
and here is one map.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hmseg.families.auxiliary import Auxiliary
from hmseg.families.blocks import ConvBN, resize, size_of
from hmseg.families.resnet101 import ResNet101

_GRIDS = (1, 2, 3, 6)
_WIDTH = 256
_leaky = partial(nn.LeakyReLU, 0.01)  # what their batch norm's layers end in outside the backbone


class PyramidPooling(nn.Module):
    """Means over four grids, each through a 1x1, beside the map; 3x3."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.levels = nn.ModuleList(ConvBN(cin, cout, act=_leaky) for _ in _GRIDS)
        self.fuse = ConvBN(cin + cout * len(_GRIDS), cout, 3, act=_leaky)

    def forward(self, x: Tensor) -> Tensor:
        """(N, cin, H, W) -> (N, cout, H, W)."""
        levels = [
            resize(level(F.adaptive_avg_pool2d(x, (grid, grid))), size_of(x), align_corners=True)
            for grid, level in zip(_GRIDS, self.levels, strict=True)
        ]
        y: Tensor = self.fuse(torch.cat([*levels, x], dim=1))
        return y


class Decoder(nn.Module):
    """The pyramid's map, enlarged, beside the first stage's."""

    def __init__(self, clow: int, chigh: int) -> None:
        super().__init__()
        self.low = ConvBN(clow, _WIDTH, act=_leaky)
        self.high = ConvBN(chigh, 48, act=_leaky)
        self.fuse = nn.Sequential(
            ConvBN(_WIDTH + 48, _WIDTH, act=_leaky), ConvBN(_WIDTH, _WIDTH, act=_leaky)
        )

    def forward(self, low: Tensor, high: Tensor) -> Tensor:
        """(N, clow, h, w), (N, chigh, H, W) -> (N, 256, H, W)."""
        low = resize(self.low(low), size_of(high))
        y: Tensor = self.fuse(torch.cat([low, self.high(high)], dim=1))
        return y


class EdgeHead(nn.Module):
    """One 3x3 for the edges of all three maps, and a 1x1 over what it finds in them."""

    def __init__(self) -> None:
        super().__init__()
        self.find = nn.Conv2d(_WIDTH, 1, 3, padding=1)
        self.fuse = nn.Conv2d(3, 1, 1)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Three maps of 256 channels, the largest first -> (N, 1, H, W)."""
        size = size_of(maps[0])
        found = [resize(self.find(x), size, align_corners=True) for x in maps]
        edges: Tensor = self.fuse(torch.cat(found, dim=1))
        return edges


class CE2P(nn.Module):
    """H and W are multiples of 16."""

    auxiliary = (Auxiliary(), Auxiliary(target="edges"))

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        c2, c3, c4, c5 = ResNet101.CHANNELS
        self.backbone = ResNet101((1, 2, 2, 1), (1, 1, 1, 2), deep_stem=True)
        self.pyramid = PyramidPooling(c5, 512)
        self.decoder = Decoder(512, c2)
        self.edges = nn.ModuleList(ConvBN(c, _WIDTH, act=_leaky) for c in (c2, c3, c4))
        self.classify = nn.Sequential(
            ConvBN(4 * _WIDTH, _WIDTH, act=_leaky),
            nn.Dropout2d(0.1),
            nn.Conv2d(_WIDTH, num_classes, 1),
        )
        self.aux_decoder = nn.Conv2d(_WIDTH, num_classes, 1)
        self.aux_edges = EdgeHead()

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        """(N, 3, H, W) -> scores (N, K, H/4, W/4)."""
        *maps, deepest = self.backbone(image)
        decoded = self.decoder(self.pyramid(deepest), maps[0])
        edges = [layer(x) for layer, x in zip(self.edges, maps, strict=True)]
        size = size_of(decoded)
        enlarged = [resize(x, size, align_corners=True) for x in edges]
        scores: Tensor = self.classify(torch.cat([decoded, *enlarged], dim=1))
        if not self.training:
            return scores
        return scores, self.aux_decoder(decoded), self.aux_edges(edges)


NETWORKS = {"ce2p": CE2P}
