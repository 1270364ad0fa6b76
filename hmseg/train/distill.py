"""The loss against a teacher: soft labels, and what it sees where widths differ.

Soft labels (Hinton et al. 2015): the divergence of the student's class probabilities at 1/8 of the
input from the teacher's. Features: how alike the teacher finds any two places of C4 and of C5
(pairwise distillation, Liu et al., CVPR 2019): no layer that translates between two widths, hence
nothing that would have to be trained and kept beside the student.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hmseg.train.losses import at_least_float32


@dataclass(frozen=True)
class Lesson:
    """What a teacher says about a batch: class scores (N, K, H/8, W/8), and C4 and C5."""

    scores: Tensor
    maps: tuple[Tensor, Tensor]


@dataclass(frozen=True)
class DistillationLoss:
    """`soft` times the divergence of the probabilities at `temperature`, times its square, plus
    `features` times the difference of the similarities; both are means over the batch."""

    soft: float = 1.0
    temperature: float = 1.0
    features: float = 0.0

    def __call__(self, scores: Tensor, maps: tuple[Tensor, Tensor], lesson: Lesson) -> Tensor:
        """The scalar loss of a student's `scores` (N, K, h, w) and its C4 and C5."""
        # Autocast is off: differences of rounded cosines would be rounding.
        with torch.autocast(scores.device.type, enabled=False):
            loss = at_least_float32(scores).new_zeros(())
            if self.soft:
                loss = loss + self.soft * soft_labels(scores, lesson.scores, self.temperature)
            if self.features:
                pairs = zip(maps, lesson.maps, strict=True)
                loss = loss + self.features * sum(likeness(*pair) for pair in pairs)
        return loss


def soft_labels(scores: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Temperature squared times the mean over all places of KL(teacher, student), both
    (N, K, h, w); the square keeps the gradient's size (Hinton et al. 2015, section 2)."""
    student = F.log_softmax(at_least_float32(scores) / temperature, dim=1)
    target = F.log_softmax(at_least_float32(teacher) / temperature, dim=1)
    each = F.kl_div(student, target, reduction="none", log_target=True).sum(1)
    return temperature**2 * each.mean()


def likeness(mine: Tensor, theirs: Tensor) -> Tensor:
    """Mean squared difference of the cosines between any two places of an image, in two maps
    (N, C, h, w) of any widths; the larger one is averaged to the smaller one's size."""
    size = min(mine.shape[-2], theirs.shape[-2]), min(mine.shape[-1], theirs.shape[-1])
    return (_cosines(mine, size) - _cosines(theirs, size)).square().mean()


def _cosines(features: Tensor, size: tuple[int, int]) -> Tensor:
    features = at_least_float32(features)
    if tuple(features.shape[-2:]) != size:
        features = F.adaptive_avg_pool2d(features, size)
    places = F.normalize(features.flatten(2), dim=1)
    return places.transpose(1, 2) @ places
