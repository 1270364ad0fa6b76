"""U-Net (arXiv 1505.04597), padded and with batch norm, as it is used today. Scores at stride 1."""

import torch
from torch import Tensor, nn

from hmseg.families.blocks import ConvBN


def double_conv(cin: int, cout: int) -> nn.Sequential:
    """Two 3x3."""
    return nn.Sequential(ConvBN(cin, cout, 3), ConvBN(cout, cout, 3))


class UNet(nn.Module):
    """Five levels down by max pooling, four up by transposed convolutions, each joined with the
    level's map by concatenation. H and W are multiples of 16."""

    WIDTHS = (64, 128, 256, 512, 1024)

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        down = zip((3, *self.WIDTHS), self.WIDTHS, strict=False)
        self.down = nn.ModuleList(double_conv(cin, cout) for cin, cout in down)
        self.pool = nn.MaxPool2d(2)
        below = list(zip(self.WIDTHS[:0:-1], self.WIDTHS[-2::-1], strict=True))
        self.enlarge = nn.ModuleList(nn.ConvTranspose2d(cin, c, 2, 2) for cin, c in below)
        self.up = nn.ModuleList(double_conv(2 * c, c) for _, c in below)
        self.classify = nn.Conv2d(self.WIDTHS[0], num_classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) -> scores (N, K, H, W)."""
        x = self.down[0](image)
        levels = []
        for level in self.down[1:]:
            levels.append(x)
            x = level(self.pool(x))
        for enlarge, up in zip(self.enlarge, self.up, strict=True):
            x = up(torch.cat([levels.pop(), enlarge(x)], dim=1))
        scores: Tensor = self.classify(x)
        return scores


NETWORKS = {"unet": UNet}
