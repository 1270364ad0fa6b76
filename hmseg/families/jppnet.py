"""JPPNet (Liang et al., "Look into person: joint body parsing and pose estimation network", T-PAMI
2018), the part that parses: DeepLabv2, a pose net beside it, and one refinement of the parsing by
both. Layers as in the authors' repository. Scores at stride 8.

The authors refine the pose too, which nothing here reads, and their evaluation refines twice. They
train the pose net on LIP's joints as well; here it learns what the parsing needs of it. The
parsing before its refinement is an auxiliary output.
"""

import torch
from torch import Tensor, nn

from hmseg.families.auxiliary import Auxiliary
from hmseg.families.resnet101 import AtrousScores, ResNet101, at_stride_8

JOINTS = 16
FEATURES = 256


def convolutions(cin: int, *layers: tuple[int, int]) -> nn.Sequential:
    """(channels, kernel) one after the other, with bias and ReLU: there is no batch norm."""
    stack = nn.Sequential()
    for cout, kernel in layers:
        stack.extend([nn.Conv2d(cin, cout, kernel, padding=kernel // 2), nn.ReLU()])
        cin = cout
    return stack


class Refinement(nn.Module):
    """Scores of `head`, which reads 256 channels, from both nets' scores and one's features."""

    def __init__(self, num_classes: int, head: nn.Module) -> None:
        super().__init__()
        self.remap_parsing = convolutions(num_classes, (128, 1))
        self.remap_pose = convolutions(JOINTS, (128, 1))
        self.layers = convolutions(256 + FEATURES, (512, 3), (256, 5), (256, 7), (256, 9), (256, 1))
        self.head = head

    def forward(self, parsing: Tensor, pose: Tensor, features: Tensor) -> Tensor:
        """(N, K, h, w), (N, 16, h, w), (N, 256, h, w) -> what the head makes of them."""
        seen = [self.remap_parsing(parsing), self.remap_pose(pose), features]
        scores: Tensor = self.head(self.layers(torch.cat(seen, dim=1)))
        return scores


class JPPNet(nn.Module):
    """H and W are multiples of 8."""

    auxiliary = (Auxiliary(),)

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        *_, c4, c5 = ResNet101.CHANNELS
        self.backbone = at_stride_8()
        self.parse = AtrousScores(c5, num_classes)
        self.parsing_features = convolutions(c5, (512, 3), (FEATURES, 3))
        self.pose_features = convolutions(
            c4, (512, 3), (512, 3), (256, 3), (256, 3), (256, 3), (256, 3)
        )
        self.pose = nn.Sequential(convolutions(256, (512, 1)), nn.Conv2d(512, JOINTS, 1))
        self.refine = Refinement(num_classes, AtrousScores(256, num_classes))

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        """(N, 3, H, W) -> scores (N, K, H/8, W/8)."""
        *_, map4, map5 = self.backbone(image)
        parsing, pose = self.parse(map5), self.pose(self.pose_features(map4))
        scores: Tensor = self.refine(parsing, pose, self.parsing_features(map5))
        return (scores, parsing) if self.training else scores


NETWORKS = {"jppnet": JPPNet}
