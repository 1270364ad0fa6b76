"""SegNet (arXiv 1511.00561): VGG16's convolutions, and a decoder that puts values back where max
pooling took them. Layers as in the authors' inference prototxt. Scores at stride 1.

Caffe pools with a ceiling, torch with a floor: the same at multiples of 32.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from hmseg.families.blocks import ConvBN, size_of

_ENCODER = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
_DECODER = ((512, 512, 512), (512, 512, 256), (256, 256, 128), (128, 64), (64,))


def convolutions(cin: int, widths: tuple[int, ...]) -> nn.Sequential:
    """3x3 one after the other, with a bias before the batch norm as there."""
    channels = (cin, *widths)
    return nn.Sequential(
        *(ConvBN(c, cout, 3, bias=True) for c, cout in zip(channels, widths, strict=False))
    )


class SegNet(nn.Module):
    """Five blocks down, five up."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        ins = (3, *(widths[-1] for widths in _ENCODER))
        self.encoder = nn.ModuleList(map(convolutions, ins, _ENCODER))
        ins = (ins[-1], *(widths[-1] for widths in _DECODER))
        self.decoder = nn.ModuleList(map(convolutions, ins, _DECODER))
        self.classify = nn.Conv2d(ins[-1], num_classes, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) -> scores (N, K, H, W)."""
        x = image
        pooled = []
        for block in self.encoder:
            x = block(x)
            size = size_of(x)
            x, indices = F.max_pool2d(x, 2, return_indices=True)
            pooled.append((indices, size))
        for block in self.decoder:
            indices, size = pooled.pop()
            x = block(F.max_unpool2d(x, indices, [2, 2], output_size=size))
        scores: Tensor = self.classify(x)
        return scores


NETWORKS = {"segnet": SegNet}
