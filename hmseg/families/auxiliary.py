"""What a peer network gives in training mode beside its scores, and how much it counts there.

In training mode a network with `auxiliary` gives (scores, one more for each of them); one without
gives its scores alone, as in eval mode. The modules behind them are called `aux_...`: they are
neither deployed nor counted (`hmseg.count`).
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn


@dataclass(frozen=True)
class Auxiliary:
    """`weight` is its loss's, relative to the scores' own; published, where its authors name one.

    Its target is the labels, for scores (N, K, h, w), or where they change, for one map (N, 1, h,
    w) of which more than 0 says that it is an edge (`hmseg.train.losses.EdgeLoss`).
    """

    weight: float = 1.0
    target: Literal["classes", "edges"] = "classes"


def auxiliary_of(network: nn.Module) -> tuple[Auxiliary, ...]:
    """What a network's training mode gives behind its scores, in order."""
    found: tuple[Auxiliary, ...] = getattr(network, "auxiliary", ())
    return found


def outputs_of(given: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """What training mode gave: the scores first."""
    return (given,) if isinstance(given, Tensor) else given
