"""Losses."""

import torch.nn.functional as F
from torch import Tensor

VOID = 255  # label of pixels that count nowhere


def boosted_cross_entropy(
    outputs: tuple[Tensor, Tensor, Tensor], labels: Tensor, *, auxiliary_weight: float = 0.4
) -> Tensor:
    """Intermediate boosting (Eq. 1): L(X_h) + w * (L(X_m) + L(X_l)), L the cross entropy.

    `outputs` are the three logits (N, K, H, W) of a network in training mode, `labels` int64
    (N, H, W) with 255 for void. Returns a scalar; 0 where every pixel is void. The paper's weight
    is not known to us: 0.4 is our choice.
    """
    main, medium, low = (_cross_entropy(logits, labels) for logits in outputs)
    return main + auxiliary_weight * (medium + low)


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    # The mean over an all-void crop is 0/0; a sum over at least one pixel keeps it finite.
    total = F.cross_entropy(logits, labels, ignore_index=VOID, reduction="sum")
    return total / (labels != VOID).sum().clamp(min=1)
