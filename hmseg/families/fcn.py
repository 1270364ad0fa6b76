"""FCN (Long et al., arXiv 1411.4038) on a dilated ResNet-50 (He et al., arXiv 1512.03385, with the
stride in the 3x3), of the shape of torchvision's `fcn_resnet50`. Scores at stride 8; the auxiliary
head sits on the third stage, its weight is that of torchvision's training.
"""

from torch import Tensor, nn

from hmseg.families.auxiliary import Auxiliary
from hmseg.families.blocks import Bottleneck, ConvBN, ScoreHead


def stage(
    cin: int, mid: int, blocks: int, stride: int, dilations: tuple[int, int]
) -> nn.Sequential:
    """Bottlenecks with four times `mid` channels; the first has the stride and its own dilation."""
    first, others = dilations
    cout = 4 * mid
    return nn.Sequential(
        Bottleneck(cin, mid, cout, stride=stride, dilation=first),
        *(Bottleneck(cout, mid, cout, dilation=others) for _ in range(blocks - 1)),
    )


class FCNResNet50(nn.Module):
    """ResNet-50 whose last two strides became dilations, and a head of one 3x3 and one 1x1."""

    auxiliary = (Auxiliary(0.5),)

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            ConvBN(3, 64, 7, stride=2),
            nn.MaxPool2d(3, 2, 1),
            stage(64, 64, 3, 1, (1, 1)),
            stage(256, 128, 4, 2, (1, 1)),
            stage(512, 256, 6, 1, (1, 2)),
            stage(1024, 512, 3, 1, (2, 4)),
        )
        self.head = ScoreHead(2048, 512, num_classes, dropout=0.1)
        self.aux_third = ScoreHead(1024, 256, num_classes, dropout=0.1)

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        """(N, 3, H, W) -> scores (N, K, H/8, W/8)."""
        third = self.backbone[:-1](image)
        scores: Tensor = self.head(self.backbone[-1](third))
        return (scores, self.aux_third(third)) if self.training else scores


NETWORKS = {"fcn-r50": FCNResNet50}
