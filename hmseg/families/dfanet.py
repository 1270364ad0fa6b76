"""DFANet-A and -B (Li et al., "DFANet: deep feature aggregation for real-time semantic
segmentation", CVPR 2019).

Three small Xception backbones, each reading what the one before has found, and its maps stage by
stage. Scores at 1/4 of the image's size. There is no official code: repeats, widths and kernels are
those that fit the paper's multiply-adds of both variants; of the two ports, one has the sigmoid
behind the attention, the other has not.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from hmseg.blocks import global_average
from hmseg.families.blocks import ConvBN, resize, size_of

A, B = (48, 96, 192), (32, 64, 128)  # channels of the stages enc2, enc3 and enc4
_REPEATS = (4, 6, 4)
_ATTENTION = 1000  # ImageNet's classes, on which the backbone was trained
_DECODER = 32


def _separable(cin: int, cout: int, *, stride: int = 1, act: bool = True) -> nn.Sequential:
    """Depthwise 3x3 with nothing behind it, 1x1 with batch norm."""
    depthwise = nn.Conv2d(cin, cin, 3, stride, padding=1, groups=cin, bias=False)
    return nn.Sequential(depthwise, ConvBN(cin, cout, act=nn.ReLU if act else None))


class _Block(nn.Module):
    """Three separable convolutions beside a shortcut."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        inner = cout // 4
        self.layers = nn.Sequential(
            _separable(cin, inner, stride=stride),
            _separable(inner, inner),
            _separable(inner, cout, act=False),
        )
        kept = stride == 1 and cin == cout
        self.shortcut = nn.Identity() if kept else _shortcut(cin, cout, stride)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.layers(x) + self.shortcut(x))


def _shortcut(cin: int, cout: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(cin, cout, 1, stride, bias=False),
        nn.BatchNorm2d(cout),
    )


def _stage(cin: int, cout: int, repeats: int) -> nn.Sequential:
    return nn.Sequential(_Block(cin, cout, 2), *(_Block(cout, cout, 1) for _ in range(repeats - 1)))


class _FullyConnectedAttention(nn.Module):
    """Channels weighted by what a classifier says of the whole map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.classify = nn.Linear(channels, _ATTENTION)
        self.weigh = ConvBN(_ATTENTION, channels, act=nn.Sigmoid)

    def forward(self, x: Tensor) -> Tensor:
        classes = self.classify(global_average(x).flatten(1))
        weighted: Tensor = x * self.weigh(classes[:, :, None, None])
        return weighted


class _Backbone(nn.Module):
    """Stages at 1/2, 1/4 and 1/8 of the input's size, and the last one's attention.

    `beside`: channels that come to each stage's input from the backbone before.
    """

    def __init__(self, cin: int, widths: Sequence[int], beside: Sequence[int]) -> None:
        super().__init__()
        inputs = [cin, *widths[:-1]]
        self.stages = nn.ModuleList(
            _stage(i + b, o, n) for i, b, o, n in zip(inputs, beside, widths, _REPEATS, strict=True)
        )
        self.attention = _FullyConnectedAttention(widths[-1])

    def forward(self, x: Tensor, beside: Sequence[Tensor] = ()) -> list[Tensor]:
        maps = []
        for number, stage in enumerate(self.stages):
            x = stage(torch.cat([x, beside[number]], dim=1) if beside else x)
            maps.append(x)
        return [*maps, self.attention(x)]


class DFANet(nn.Module):
    """Images (N, 3, H, W), sides multiples of 64, to scores (N, num_classes, H/4, W/4)."""

    def __init__(self, num_classes: int, widths: tuple[int, int, int]) -> None:
        super().__init__()
        enc2, enc3, enc4 = widths
        self.stem = ConvBN(3, 8, 3, stride=2)
        self.backbone1 = _Backbone(8, widths, (0, 0, 0))
        self.backbone2 = _Backbone(enc2, widths, (enc4, enc3, enc4))
        self.backbone3 = _Backbone(enc2, widths, (enc4, enc3, enc4))
        self.shallow = nn.ModuleList(ConvBN(enc2, _DECODER) for _ in range(3))
        self.deep = nn.ModuleList(ConvBN(enc4, _DECODER) for _ in range(3))
        self.fuse = ConvBN(_DECODER, _DECODER, 3)
        self.classify = nn.Conv2d(_DECODER, num_classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Scores at 1/4 of the image's size."""
        found = [self.backbone1(self.stem(image))]
        for backbone in (self.backbone2, self.backbone3):
            enc2, enc3, enc4, attended = found[-1]
            found.append(backbone(enc2, (_up(attended, 4), enc3, enc4)))
        fused = self.fuse(_sum(self.shallow, [maps[0] for maps in found], 1))
        scores: Tensor = self.classify(fused + _sum(self.deep, [maps[3] for maps in found], 4))
        return scores


def _sum(layers: nn.ModuleList, maps: list[Tensor], factor: int) -> Tensor:
    """Of the maps of the three backbones at the first one's size times `factor`."""
    first, second, third = (layer(x) for layer, x in zip(layers, maps, strict=True))
    total: Tensor = _up(first, factor) + _up(second, 2 * factor) + _up(third, 4 * factor)
    return total


def _up(x: Tensor, factor: int) -> Tensor:
    height, width = size_of(x)
    return resize(x, (height * factor, width * factor), align_corners=True)


NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "dfanet-a": partial(DFANet, widths=A),
    "dfanet-b": partial(DFANet, widths=B),
}
