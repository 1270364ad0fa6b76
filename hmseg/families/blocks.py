"""What several peer networks are made of. Convolutions pad to keep the size, and have no bias
where a batch norm follows, unless said.
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

Size = tuple[int, int]


def size_of(x: Tensor) -> Size:
    """(H, W) as Python integers: under torch's tracing exporter a shape's entries are tensors,
    and sizes that were computed from them would be computed in the graph."""
    return int(x.shape[-2]), int(x.shape[-1])


def resize(x: Tensor, size: Size, *, align_corners: bool = False) -> Tensor:
    """Bilinear to (H, W); nothing where the size is the same."""
    if size_of(x) == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=align_corners)


def resize_nearest(x: Tensor, size: Size) -> Tensor:
    """Nearest (torch's: floor of the scaled index) to (H, W)."""
    return F.interpolate(x, size=size, mode="nearest")


class AtImageSize(nn.Module):
    """A network in eval mode, with its scores resized to the image as the deployed graph has them:
    (N, 3, H, W) -> (N, K, H, W)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.eval()

    def forward(self, image: Tensor) -> Tensor:
        """Scores at the image's size."""
        return resize(self.network(image), size_of(image))


class ConvBN(nn.Sequential):
    """Convolution, batch norm, and an activation (ReLU) or none."""

    def __init__(
        self,
        cin: int,
        cout: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
        act: Callable[[], nn.Module] | None = nn.ReLU,
        eps: float = 1e-5,
    ) -> None:
        padding = dilation * (kernel // 2)
        super().__init__(
            nn.Conv2d(cin, cout, kernel, stride, padding, dilation, groups, bias),
            nn.BatchNorm2d(cout, eps),
            *([act()] if act else []),
        )


class ScoreHead(nn.Sequential):
    """3x3 to `mid` channels, dropout, and 1x1 scores: what most auxiliary heads are."""

    def __init__(self, cin: int, mid: int, cout: int, *, dropout: float = 0.0) -> None:
        super().__init__(ConvBN(cin, mid, 3), nn.Dropout(dropout), nn.Conv2d(mid, cout, 1))


class PreActConv(nn.Sequential):
    """Batch norm, ReLU, convolution (pre-activation)."""

    def __init__(
        self, cin: int, cout: int, kernel: int = 1, *, groups: int = 1, bias: bool = False
    ) -> None:
        conv = nn.Conv2d(cin, cout, kernel, padding=kernel // 2, groups=groups, bias=bias)
        super().__init__(nn.BatchNorm2d(cin), nn.ReLU(), conv)


class BasicBlock(nn.Module):
    """ResNet's: two 3x3, a 1x1 shortcut where the shape changes, ReLU after the sum unless `act`
    is False."""

    def __init__(self, cin: int, cout: int, *, stride: int = 1, act: bool = True) -> None:
        super().__init__()
        self.body = nn.Sequential(
            ConvBN(cin, cout, 3, stride=stride), ConvBN(cout, cout, 3, act=None)
        )
        self.shortcut = _shortcut(cin, cout, stride)
        self.act = nn.ReLU() if act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, cin, H, W) -> (N, cout, H/stride, W/stride)."""
        y: Tensor = self.act(self.body(x) + self.shortcut(x))
        return y


class Bottleneck(nn.Module):
    """ResNet's: 1x1 to `mid`, 3x3, 1x1, else as the basic block.

    The stride is the 3x3's; Caffe's networks have it in the first 1x1 (`stride_first`).
    """

    def __init__(
        self,
        cin: int,
        mid: int,
        cout: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        act: bool = True,
        stride_first: bool = False,
    ) -> None:
        super().__init__()
        first, second = (stride, 1) if stride_first else (1, stride)
        self.body = nn.Sequential(
            ConvBN(cin, mid, stride=first),
            ConvBN(mid, mid, 3, stride=second, dilation=dilation),
            ConvBN(mid, cout, act=None),
        )
        self.shortcut = _shortcut(cin, cout, stride)
        self.act = nn.ReLU() if act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(N, cin, H, W) -> (N, cout, H/stride, W/stride)."""
        y: Tensor = self.act(self.body(x) + self.shortcut(x))
        return y


def _shortcut(cin: int, cout: int, stride: int) -> nn.Module:
    if stride == 1 and cin == cout:
        return nn.Identity()
    return ConvBN(cin, cout, stride=stride, act=None)


def basic_stage(cin: int, cout: int, blocks: int, stride: int = 1) -> nn.Sequential:
    """Basic blocks, the first with the stride, the last without its ReLU: whoever uses the sum
    applies it."""
    return nn.Sequential(
        *(
            BasicBlock(cout if i else cin, cout, stride=1 if i else stride, act=i < blocks - 1)
            for i in range(blocks)
        )
    )


class ResNet18(nn.Module):
    """The encoder: 64, 128, 256 and 512 channels at strides 4, 8, 16 and 32.

    Gives the four maps, taken before their last ReLU where `before_relu`.
    """

    CHANNELS = (64, 128, 256, 512)

    def __init__(self, *, before_relu: bool = False) -> None:
        super().__init__()
        self.before_relu = before_relu
        self.stem = nn.Sequential(ConvBN(3, 64, 7, stride=2), nn.MaxPool2d(3, 2, 1))
        self.stages = nn.ModuleList(
            [
                basic_stage(64, 64, 2),
                basic_stage(64, 128, 2, stride=2),
                basic_stage(128, 256, 2, stride=2),
                basic_stage(256, 512, 2, stride=2),
            ]
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        """(N, 3, H, W) -> four maps."""
        maps = []
        x = self.stem(image)
        for stage in self.stages:
            total = stage(x)
            x = F.relu(total)
            maps.append(total if self.before_relu else x)
        return maps
