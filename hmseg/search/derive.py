"""The network that a search ends with: the most probable one within the budget."""

from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hmseg.search.architecture import Architecture, Path
from hmseg.search.budget import show_cost
from hmseg.search.objective import Objective
from hmseg.search.space import LAYERS
from lut.errors import UserError
from lut.estimate import Estimate

BINS = 32768  # of the total; a network may miss the budget by 22 of them and not be found

Floats = NDArray[np.float64]


def cost_range(objective: Objective, architecture: Architecture) -> tuple[Estimate, Estimate]:
    """The cheapest and the dearest network of a space."""
    cheapest, dearest = (objective.estimate(_extreme(objective, architecture, sign))
                         for sign in (1, -1))  # fmt: skip
    return cheapest, dearest


def _extreme(objective: Objective, architecture: Architecture, sign: int) -> Path:
    """The cheapest network, or with sign -1 the dearest."""
    scores = torch.where(architecture.allowed, 0.0, -torch.inf)
    found = []
    for ratios in _ratios(architecture):
        places = _places(objective, scores, ratios)
        ends = [int((sign * place.costs).argmin()) for place in places]
        total = sum(place.costs[end] for place, end in zip(places, ends, strict=True))
        found.append((sign * (total + float(objective.fixed[ratios])), _path(places, ends, ratios)))
    return min(found, key=lambda item: item[0])[1]


def require_reachable(objective: Objective, architecture: Architecture) -> None:
    """Raise UserError, naming the range, for a budget that no network of the space meets."""
    cheapest, dearest = cost_range(objective, architecture)
    budget = objective.budget
    if cheapest.upper > budget.limit:
        least, most = (show_cost(end.upper, budget.unit) for end in (cheapest, dearest))
        raise UserError(
            f"budget {budget}: nothing in this space meets it; its networks take {least} to "
            f"{most} by the estimate's upper bound"
        )


def derive(objective: Objective, architecture: Architecture) -> tuple[Path, bool]:
    """The most probable network within the budget, and whether it is the most probable of all.

    Where the most probable candidates of each row together exceed the budget, the most probable
    network that does not is found by dynamic programming over the total: for each pair of ratios, a
    knapsack of 21 items (s1 and s2's first layer are one: they may share a kernel), with costs
    rounded up to 1/32768 of the limit.
    """
    path = architecture.most_probable()
    if objective.within(path):
        return path, True
    with torch.no_grad():
        scores = torch.log(architecture.probabilities())
    limit = _total_limit(objective, architecture)
    found = [
        (score, candidate)
        for ratios in _ratios(architecture)
        for score, candidate in [_knapsack(objective, scores, ratios, limit)]
        if candidate is not None
    ]
    if not found:
        require_reachable(objective, architecture)  # names the range
        # The budget is that of the cheapest network, and the rounding hides even that.
        return _extreme(objective, architecture, 1), False
    _, path = max(found, key=lambda item: item[0])
    assert objective.within(path)
    return path, False


def _ratios(architecture: Architecture) -> list[tuple[int, int]]:
    medium, low = (torch.nonzero(row).flatten().tolist() for row in architecture.allowed[-2:])
    return list(product(medium, low))


@dataclass(frozen=True)
class _Place:
    """What is chosen at once: costs (n,), log-probabilities (n,), and which candidates of which
    layers each choice is."""

    costs: Floats
    scores: Floats
    choices: list[dict[int, int]]


def _places(objective: Objective, scores: Tensor, ratios: tuple[int, int]) -> list[_Place]:
    """s1 and s2's first layer together, since they may share a kernel; then layer by layer."""
    layers = objective.layers[ratios]
    first = layers[0][:, None] + layers[1][None] + objective.pairs
    places = [_place((0, 1), first, scores[0][:, None] + scores[1][None])]
    places += [_place((row,), layers[row], scores[row]) for row in range(2, len(LAYERS))]
    return places


def _place(rows: tuple[int, ...], costs: Tensor, scores: Tensor) -> _Place:
    there = scores > -torch.inf
    choices = [dict(zip(rows, index, strict=True)) for index in torch.nonzero(there).tolist()]
    return _Place(costs[there].numpy(), scores[there].numpy(), choices)


def _total_limit(objective: Objective, architecture: Architecture) -> float:
    """The largest total whose estimate's upper bound is within the budget, by bisection: the upper
    bound grows with the total."""
    network, limit = objective.cost.cost.network, objective.budget.limit
    low, high = 0.0, objective.total(architecture.most_probable())
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if network(middle).upper <= limit else (low, middle)
    return low


def _knapsack(
    objective: Objective, scores: Tensor, ratios: tuple[int, int], limit: float
) -> tuple[float, Path | None]:
    """The best log-probability of a network with these ratios within `limit`, and the network."""
    room = limit - float(objective.fixed[ratios])
    if room <= 0:
        return -np.inf, None
    places = _places(objective, scores, ratios)
    bins = [np.ceil(np.maximum(place.costs, 0) / room * BINS).astype(int) for place in places]
    best = np.zeros(BINS + 1)  # by what may still be spent, in bins
    taken = []
    for place, widths in zip(places, bins, strict=True):
        options = np.full((len(widths), BINS + 1), -np.inf)
        for index, width in enumerate(widths):
            if width <= BINS:
                options[index, width:] = place.scores[index] + best[: BINS + 1 - width]
        taken.append(options.argmax(0))
        best = options.max(0)
    medium, low = ratios
    total = float(best[-1] + scores[-2][medium] + scores[-1][low])
    if total == -np.inf:
        return total, None
    ends, left = [], BINS
    for widths, choice in reversed(list(zip(bins, taken, strict=True))):
        ends.append(int(choice[left]))
        left -= int(widths[ends[-1]])
    return total, _path(places, ends[::-1], ratios)


def _path(places: list[_Place], ends: list[int], ratios: tuple[int, int]) -> Path:
    """The path of one choice at each place."""
    chosen: dict[int, int] = {}
    for place, end in zip(places, ends, strict=True):
        chosen |= place.choices[end]
    return Path((*(chosen[row] for row in range(len(LAYERS))), *ratios))
