import random

import pytest

from hmseg.cost import SpaceCost
from hmseg.genotype import random_genotype
from hmseg.operators import Space
from lut.errors import UserError
from lut.estimate import Estimate, LatencyCost, MacsCost
from lut.table_file import load_table, save_table
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
    entries = {key: 1.0 + key.macs for key in space.all_keys()}
    genotypes = [random_genotype(random.Random(n)) for n in range(6)]
    calibration = [
        visit(str(g), {key: 1.0 for key in space.keys(g)}, role="calibration", whole=7.0 + n)
        for n, g in enumerate(genotypes)
    ]
    latency = SpaceCost(LatencyCost(table(visit("e", entries), *calibration)), space)
    assert latency.of(genotypes[0]).unit == "us"
    assert SpaceCost(MacsCost(), space).of(genotypes[0]).unit == "MACs"


def test_ten_thousand_estimates_from_a_file(tmp_path):
    """Each is calibration and the sum of the network's entries, done here entry by entry."""
    space, rng, path = Space((256, 512), 0.5), random.Random(11), tmp_path / "t.jsonl"
    entries = {key: 1 + key.macs / 1e5 for key in space.all_keys()}
    calibration = [
        visit(str(g), {key: entries[key] for key in space.keys(g)}, role="calibration",
              whole=40 + 1.1 * sum(entries[key] for key in space.keys(g)))
        for g in (random_genotype(rng) for _ in range(6))
    ]  # fmt: skip
    save_table(table(visit("e", entries), *calibration), path)
    cost = SpaceCost(LatencyCost(load_table(path)), space)
    genotypes = [random_genotype(rng) for _ in range(10_000)]
    values = [cost.of(genotype).value for genotype in genotypes]
    # A visit's entries count their calls, here 1 each: the calibration's sums are of distinct keys.
    fit = cost.cost.calibration
    for genotype, value in zip(genotypes, values, strict=True):
        total = sum(entries[key] for key in space.keys(genotype))
        assert value == pytest.approx(fit.overhead_us + fit.factor * total)
    assert len(set(values)) > 9_900


def test_what_is_missing_raises():
    with pytest.raises(UserError, match="no entry "):
        SpaceCost(LatencyCost(table(visit())), Space((256, 512), 0.5))
    with pytest.raises(UserError, match=r"is for other networks than these: width 0.5 and 1.0"):
        SpaceCost(LatencyCost(table(visit())), Space((256, 512), 1.0))
