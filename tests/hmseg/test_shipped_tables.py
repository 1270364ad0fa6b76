"""Every latency table that ships is complete, sound, and says where it comes from."""

import random
from pathlib import Path

import pytest

import lut
from deploy.cpu.kernels import KERNELS_VERSION
from hmseg.cost import SpaceCost
from hmseg.genotype import random_genotype
from hmseg.operators import RESIZE_RULE, Space
from hmseg.zoo import network_config
from lut.estimate import LatencyCost
from lut.ops import Conv
from lut.table_file import load_table

# Microseconds of a frame, and the error, as the tables gave them before operations had a text of
# their own (hmseg.cost.SpaceCost at version 1 of the tables' format).
ESTIMATES = {
    ("xeon-256x512-width0.5-2threads", "mrms"): (5370.326141022932, 171.61959114140456),
    ("xeon-256x512-width0.5-2threads", "tiny-hmseg"): (5269.97079462258, 169.52679182952193),
    ("zen5-256x512-width0.5-2threads", "mrms"): (1529.0556759015085, 35.8067413044106),
    ("zen5-256x512-width0.5-2threads", "tiny-hmseg"): (1518.5535000528703, 35.643949291412355),
    ("zen5-256x512-width1.0-2threads", "mrms"): (3873.5537526242265, 122.59765307768001),
    ("zen5-256x512-width1.0-2threads", "tiny-hmseg"): (3740.8612222691363, 119.10587889452195),
}
# Versions of the kernels at which the space's own are what they are now: the fourth and the fifth
# changed dense convolutions (dilated, Winograd's, at stride 2), of which the space has none; what
# the fifth asks for ahead of pointwise ones was in the caches where a table times them. The sixth
# changed dense ones again, in int8 too, and inverted residuals wider than any of the space.
SAME_KERNELS = (3, 4, 5, KERNELS_VERSION)
DATA = Path(lut.__file__).parent / "data"
TABLES = sorted(path.with_suffix("") for path in DATA.glob("*.jsonl.xz"))  # as users name them


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
    assert not any(isinstance(key, Conv) for key in table.entries)
    space.check(set(table.entries), path.name)
    assert identity.resize_rule == RESIZE_RULE
    ((provenance, visits),) = table.runs  # one device, one protocol
    assert provenance.kernels_version in SAME_KERNELS
    assert provenance.cpu
    assert provenance.date
    assert not provenance.emulated
    assert len({visit.date for visit in visits}) > 1
    cost = SpaceCost(LatencyCost(table), space)
    assert LatencyCost(table).calibration.error < 0.05
    for name in ("mrms", "tiny-hmseg"):
        estimate = cost.of(network_config(name).genotype)
        known = ESTIMATES[path.stem, name]
        assert (estimate.value, estimate.error) == pytest.approx(known, rel=1e-9)
    rng = random.Random(0)
    for _ in range(100):
        genotype = random_genotype(rng)
        estimate = cost.of(genotype)
        assert 0 < estimate.value < estimate.upper
        entries = sum(table.entry(key).median_us for key in space.keys(genotype))
        assert estimate.value == pytest.approx(cost.cost.network(entries).value)
