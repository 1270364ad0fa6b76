import random
from itertools import product

import pytest

from hmseg.covering import STAGES, covering_networks, random_networks
from hmseg.genotype import GROUPS, MRMS_GENOTYPE, RATIO_TENTHS
from hmseg.operators import OPERATORS, Space
from lut.errors import UserError
from lut.ops import InvertedResidual


@pytest.mark.parametrize(("size", "count"), [((256, 512), 54), ((768, 1536), 63)])
def test_every_entry_occurs_and_no_fewer_networks_could_do(size, count):
    space = Space(size, 0.5)
    networks = covering_networks(space, random.Random(0))
    assert len(networks) == count == len(set(map(str, networks)))
    found = {key for network in networks for key in space.keys(network)}
    assert found == space.all_keys()
    assert len({k for k in found if isinstance(k, InvertedResidual) and k.dilation == 4
                and k.cout == 160 and k.cin == 80}) == count  # fmt: skip


@pytest.mark.parametrize("stage", STAGES)
def test_one_stage_varies_alone(stage):
    space = Space((256, 512), 1.0)
    networks = covering_networks(space, random.Random(0), [stage])
    index = STAGES.index(stage)
    for network in networks + random_networks(space, random.Random(1), 5, [stage]):
        others = zip(network.ops, MRMS_GENOTYPE.ops, strict=True)
        assert all(mine == fixed for i, (mine, fixed) in enumerate(others) if i != index)
    ratios = product(RATIO_TENTHS, RATIO_TENTHS) if stage[:2] == "s5" else (
        [(m, 5) for m in RATIO_TENTHS] if stage[:2] == "s4" else [(5, 5)])  # fmt: skip
    wanted = {
        key
        for medium, low in ratios
        for op in OPERATORS
        for layer in range(GROUPS[index].layers)
        for key in space.layer(GROUPS[index], layer, op, medium, low)
        if not (layer == 0 and stage in ("s1", "s2"))  # with the other in one kernel, mostly
    }
    assert wanted <= {key for network in networks for key in space.keys(network)}
    # What calibrates is made of what was measured.
    assert {k for n in random_networks(space, random.Random(1), 20, [stage]) for k in space.keys(n)
            } <= {key for network in networks for key in space.keys(network)}  # fmt: skip


def test_an_unknown_stage_is_named():
    with pytest.raises(UserError, match="unknown stage 's9'"):
        covering_networks(Space((256, 512), 1.0), random.Random(0), ["s9"])
