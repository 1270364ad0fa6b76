"""The cost of a distribution over networks, exactly, and the loss that steers it (Eq. 4)."""

from collections.abc import Mapping
from itertools import product

import torch
from torch import Tensor

from hmseg.cost import SpaceCost
from hmseg.genotype import RATIO_TENTHS, Genotype
from hmseg.search.architecture import COUNT, Path
from hmseg.search.budget import Budget
from hmseg.search.space import CANDIDATES, LAYERS
from lut.estimate import Estimate, LatencyCost


class Objective:
    """The cost as tensors, float64, of every choice together with every pair of ratios.

    `layers` (3, 3, 22, 10): medium ratio, low ratio, layer, candidate; `fixed` (3, 3): what every
    network has besides; `pairs` (10, 10): what s1 and s2's first layer cost together beyond the sum
    of both. A network's total is a sum of these, its estimate offset + slope * total.
    """

    def __init__(self, cost: SpaceCost, budget: Budget) -> None:
        self.cost, self.budget = cost, budget
        self.layers = torch.zeros(3, 3, len(LAYERS), COUNT, dtype=torch.float64)
        self.fixed = torch.zeros(3, 3, dtype=torch.float64)
        for (m, medium), (r, low) in product(enumerate(RATIO_TENTHS), enumerate(RATIO_TENTHS)):
            self.fixed[m, r] = cost.fixed[medium, low]
            self.layers[m, r] = torch.tensor(
                [[layer.get(op, 0.0) for op in CANDIDATES]
                 for layer in cost.layers[medium, low]], dtype=torch.float64,
            )  # fmt: skip
        self.pairs = torch.tensor(
            [[cost.pairs.get((a, b), 0.0) for b in CANDIDATES] for a in CANDIDATES],
            dtype=torch.float64,
        )
        # Every cost is linear in the total; only its error is not.
        self.offset = cost.cost.network(0.0).value
        self.slope = cost.cost.network(1.0).value - self.offset

    def corrected(self, measured_us: Mapping[Genotype, float]) -> "Objective":
        """The same with networks that were timed among those that calibrate the table."""
        latency = self.cost.cost
        assert isinstance(latency, LatencyCost)  # nothing else is timed
        further = [(self.cost.total(genotype), us) for genotype, us in measured_us.items()]
        return Objective(self.cost.calibrated(LatencyCost(latency.table, further)), self.budget)

    def expected(self, probabilities: Tensor) -> Tensor:
        """E(A): the exact expectation of the estimate over operators and both ratios.

        `probabilities` (24, 10) of `Architecture.probabilities`. The rows are independent, so the
        expectation is a sum of products; nothing is sampled.
        """
        ops = probabilities[:-2]
        ratios = torch.outer(*probabilities[-2:, : len(RATIO_TENTHS)])
        total = (ratios * (self.fixed + (self.layers * ops).sum((2, 3)))).sum()
        total = total + ops[0] @ self.pairs @ ops[1]
        return self.offset + self.slope * total

    def estimate(self, path: Path) -> Estimate:
        """F(a): the calibrated estimate of one network; the budget is on its upper bound."""
        return self.cost.of(path.genotype)

    def within(self, path: Path) -> bool:
        """Whether a network's upper bound is within the budget."""
        return self.estimate(path).upper <= self.budget.limit

    def loss(self, probabilities: Tensor, path: Path) -> Tensor:
        """L_cost = sign(F(a) - R) log E(A) (Eq. 4): above the budget R the expected cost is made
        smaller, below it larger."""
        upper, limit = self.estimate(path).upper, self.budget.limit
        sign = (upper > limit) - (upper < limit)
        return sign * torch.log(self.expected(probabilities))

    def total(self, path: Path) -> float:
        """The sum of entries whose estimate `estimate` gives."""
        *ops, medium, low = path.choices
        rows = torch.arange(len(LAYERS))
        total = self.fixed[medium, low] + self.layers[medium, low][rows, torch.tensor(ops)].sum()
        return float(total + self.pairs[ops[0], ops[1]])
