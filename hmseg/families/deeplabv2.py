"""DeepLabv2 (Chen et al., arXiv 1606.00915) on ResNet-101: the paper's Table 3 calls it DeepLab.
Scores at stride 8. Its authors train on three scales of the image and have no auxiliary heads.
"""

from torch import Tensor, nn

from hmseg.families.resnet101 import AtrousScores, ResNet101, at_stride_8


class DeepLabV2(nn.Module):
    """H and W are multiples of 8."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.backbone = at_stride_8()
        self.classify = AtrousScores(ResNet101.CHANNELS[-1], num_classes)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) -> scores (N, K, H/8, W/8)."""
        scores: Tensor = self.classify(self.backbone(image)[-1])
        return scores


NETWORKS = {"deeplabv2-r101": DeepLabV2}
