"""A cost whose entries are all different, for tests: no table, nothing measured."""

import random

from hmseg.cost import SpaceCost
from hmseg.operators import Space
from hmseg.search.budget import Budget
from hmseg.search.objective import Objective
from lut.estimate import Estimate


class Odd:
    """Linear in the total, with an error that grows with it, as a calibrated latency."""

    unit = "us"

    def __init__(self) -> None:
        self.rng, self.values = random.Random(3), {}

    def entry(self, key) -> float:
        return self.values.setdefault(key, 1 + self.rng.random())

    def network(self, total: float) -> Estimate:
        return Estimate(5 + 1.1 * total, 1 + 0.05 * total, self.unit)


def odd_objective(limit: float = 1e9) -> Objective:
    return Objective(SpaceCost(Odd(), Space((256, 512), 0.5)), Budget(limit, "us"))
