import random

import pytest

from hmseg.cost import SpaceCost
from hmseg.genotype import random_genotype
from hmseg.operators import Space
from lut.costs import macs
from lut.errors import UserError
from lut.estimate import Estimate, LatencyCost, MacsCost
from tests.lut.tables import table, visit


class Odd:
    """A cost in which no sum of entries is another's."""

    unit = "odd"

    def __init__(self):
        self.rng, self.values = random.Random(3), {}

    def entry(self, key):
        return self.values.setdefault(key, self.rng.random())

    def network(self, total):
        return Estimate(total, 0.1, self.unit)


def test_a_network_costs_the_sum_of_its_entries():
    cost, space, rng = Odd(), Space((256, 512), 0.5), random.Random(4)
    whole = SpaceCost(cost, space)
    for _ in range(200):
        genotype = random_genotype(rng)
        wanted = sum(map(cost.entry, space.keys(genotype)))
        assert whole.of(genotype).value == pytest.approx(wanted)


def test_all_costs_have_one_interface():
    space = Space((256, 512), 0.5)
    entries = {key: 1.0 + macs(key) for key in space.all_keys()}
    genotypes = [random_genotype(random.Random(n)) for n in range(6)]
    calibration = [
        visit(str(g), {key: 1.0 for key in space.keys(g)}, role="calibration", whole=7.0 + n)
        for n, g in enumerate(genotypes)
    ]
    latency = SpaceCost(LatencyCost(table(visit("e", entries), *calibration)), space)
    assert latency.of(genotypes[0]).unit == "us"
    assert SpaceCost(MacsCost(), space).of(genotypes[0]).unit == "MACs"


def test_what_is_missing_raises():
    with pytest.raises(UserError, match=r"no entry .*lut build"):
        SpaceCost(LatencyCost(table(visit())), Space((256, 512), 0.5))
    with pytest.raises(UserError, match=r"is for other networks than these: width 0.5 and 1.0"):
        SpaceCost(LatencyCost(table(visit())), Space((256, 512), 1.0))
