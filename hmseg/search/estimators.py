"""How the task's loss reaches the architecture: two estimators of one gradient
(docs/decisions/0030)."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from hmseg.search.architecture import Architecture, Path
from hmseg.search.config import Estimator
from hmseg.train.distributed import World

TaskLoss = Callable[[Path], Tensor]
"""This process's share of the loss of one batch, all of it by one path."""

Slope = tuple[Tensor, float]
"""d loss / d logits (24, 10) summed over all processes; the loss."""


def straight_through(
    loss: TaskLoss, architecture: Architecture, paths: list[Path], world: World
) -> Slope:
    """Eq. 2: the loss's gradient through the gates of what was sampled, averaged over the paths."""
    slopes, values = [], []
    for path in paths:
        value = loss(path)
        (slope,) = torch.autograd.grad(value, architecture.logits)
        slopes.append(slope)
        values.append(value.detach())
    return world.sum(torch.stack(slopes).mean(0)), world.sum(torch.stack(values).mean()).item()


@torch.no_grad()
def score(loss: TaskLoss, architecture: Architecture, paths: list[Path], world: World) -> Slope:
    """REINFORCE on one batch: each path's loss against the mean of the others' (Kool et al., 2019),
    times the gradient of its log-probability. No backward pass; unbiased. Of at least two paths."""
    losses = world.sum(torch.stack([loss(Path(path.choices)) for path in paths])).double().cpu()
    count = len(paths)
    advantages = (losses - losses.mean()) * count / (count - 1)
    with torch.enable_grad():
        scores = [architecture.log_probability(path) for path in paths]
        (slope,) = torch.autograd.grad(
            (advantages * torch.stack(scores)).mean(), architecture.logits
        )
    return slope, losses.mean().item()


ESTIMATORS: Mapping[Estimator, Callable[[TaskLoss, Architecture, list[Path], World], Slope]] = (
    MappingProxyType({"straight-through": straight_through, "score": score})
)
