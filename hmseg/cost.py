"""The cost of any network of the search space: latency, MACs or parameters. No torch."""

import copy
from itertools import product

from hmseg.genotype import GROUPS, RATIO_TENTHS, Genotype, Op
from hmseg.operators import OPERATORS, Space
from lut.estimate import Cost, Estimate, LatencyCost

Ratios = tuple[int, int]


class SpaceCost:
    """Every choice's cost, looked up once, so that a network is a few additions.

    Raises UserError where the cost does not know an entry of the space, and where a latency table
    is for other networks. `layers` holds, for each pair of ratios in tenths, the cost of each
    operator in each of the 22 layers (identity, None, costs nothing), in the order of the genotype;
    `fixed` what every network has besides; `pairs` what s1 and s2's first layer cost together
    beyond the sum of both, where one kernel does both.
    """

    def __init__(self, cost: Cost, space: Space) -> None:
        if isinstance(cost, LatencyCost):
            space.require_table(cost.table)
        self.cost, self.space = cost, space
        self.layers: dict[Ratios, list[dict[Op | None, float]]] = {}
        self.fixed: dict[Ratios, float] = {}
        for medium in RATIO_TENTHS:
            for low in RATIO_TENTHS:
                self.layers[medium, low] = [
                    {None: 0.0} for group in GROUPS for _ in range(group.layers)
                ]
                self.fixed[medium, low] = sum(map(cost.entry, space.fixed(medium, low)))
        first = {group.name: sum(g.layers for g in GROUPS[:index])
                 for index, group in enumerate(GROUPS)}  # fmt: skip
        for group, layer, op, medium, low in space.choices():
            keys = space.layer(group, layer, op, medium, low)
            place = self.layers[medium, low][first[group.name] + layer]
            place[op] = sum(map(cost.entry, keys))
        self.pairs: dict[tuple[Op | None, Op | None], float] = {}
        for s1, s2 in product(OPERATORS, OPERATORS):
            pair = space.pair(s1, s2)
            if pair:
                apart = [*space.first(s1), *space.layer(GROUPS[1], 0, s2, 5, 5)]
                self.pairs[s1, s2] = cost.entry(pair) - sum(map(cost.entry, apart))

    def of(self, genotype: Genotype) -> Estimate:
        """The cost of a network, with its error."""
        return self.cost.network(self.total(genotype))

    def total(self, genotype: Genotype) -> float:
        """The sum of a network's entries."""
        ratios = genotype.medium_tenths, genotype.low_tenths
        total, places = self.fixed[ratios], iter(self.layers[ratios])
        for ops in genotype.ops:
            for op in ops:
                total += next(places)[op]
        return total + self.pairs.get((genotype.ops[0][0], genotype.ops[1][0]), 0.0)

    def calibrated(self, cost: Cost) -> "SpaceCost":
        """The same entries, with what another cost makes of their sum."""
        other = copy.copy(self)
        other.cost = cost
        return other
