"""Every latency table that ships is complete, sound, and says where it comes from."""

import random
from pathlib import Path

import pytest

import lut
from deploy.cpu.kernels import KERNELS_VERSION
from hmseg.cost import SpaceCost
from hmseg.genotype import random_genotype
from hmseg.operators import RESIZE_RULE, Space
from lut.estimate import LatencyCost
from lut.table import load_table

DATA = Path(lut.__file__).parent / "data"
TABLES = sorted(DATA.glob("*.jsonl"))


def test_both_widths_ship():
    identities = [load_table(path).identity for path in TABLES]
    assert {(i.target_name, i.resolution, i.width, i.threads) for i in identities} >= {
        ("cpu", "256x512", width, 2) for width in (0.5, 1.0)
    }


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_a_shipped_table(path):
    table = load_table(path)
    identity = table.identity
    height, width = map(int, identity.resolution.split("x"))
    space = Space((height, width), identity.width, identity.num_classes)
    assert set(table.entries) == space.all_keys()
    assert identity.resize_rule == RESIZE_RULE
    ((provenance, visits),) = table.runs  # one device, one protocol
    assert provenance.kernels_version == KERNELS_VERSION
    assert provenance.cpu
    assert provenance.date
    assert not provenance.emulated
    assert len({visit.date for visit in visits}) > 1
    cost = SpaceCost(LatencyCost(table), space)
    assert LatencyCost(table).calibration.error < 0.05
    rng = random.Random(0)
    for _ in range(100):
        genotype = random_genotype(rng)
        estimate = cost.of(genotype)
        assert 0 < estimate.value < estimate.upper
        entries = sum(table.entry(key).median_us for key in space.keys(genotype))
        assert estimate.value == pytest.approx(cost.cost.network(entries).value)
