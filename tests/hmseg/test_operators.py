import random

import pytest

from hmseg.cost import SpaceCost
from hmseg.count import count_macs, count_parameters
from hmseg.genotype import MRMS_GENOTYPE, Op, random_genotype
from hmseg.mrms import MRMS, MRMSConfig
from hmseg.operators import Space
from lut.errors import UserError
from lut.estimate import MacsCost, ParametersCost
from lut.ops import InvertedResidual, Stem, StemBlock, StemPair, parse_operation

SMALL, PAPER = (256, 512), (768, 1536)


@pytest.mark.parametrize("width", [0.5, 1.0])
def test_the_space_has_as_many_entries_as_the_design_says(width):
    for size, operators, fixed in ((SMALL, 315, 35), (PAPER, 342, 36)):
        space = Space(size, width)
        assert len(space.operator_keys()) == operators
        assert len(space.fixed_keys()) == fixed
        assert len(space.pair_keys()) == 18
        assert len(space.all_keys()) == operators + 18 + fixed
        for key in space.all_keys():
            assert parse_operation(str(key)) == key


@pytest.mark.parametrize("width", [0.5, 1.0])
def test_entries_sum_up_to_the_counts_of_the_network(width):
    rng = random.Random(6)
    for genotype in (MRMS_GENOTYPE, *(random_genotype(rng) for _ in range(4))):
        model = MRMS(MRMSConfig(genotype, width, num_classes=11))
        for size in ((256, 512), (200, 330)):
            keys = Space(size, width, 11).keys(genotype)
            assert sum(key.macs for key in keys) == count_macs(model, *size)
            assert sum(key.parameters for key in keys) == count_parameters(model)
            space = Space(size, width, 11)
            assert SpaceCost(MacsCost(), space).of(genotype).value == count_macs(model, *size)
            count = SpaceCost(ParametersCost(), space).of(genotype)
            assert (count.value, count.upper) == (count_parameters(model),) * 2


def test_two_layers_in_one_kernel_are_one_entry():
    space = Space(SMALL, 0.5)
    (pair,) = space.first_two(Op(1, 5), Op(6, 3))
    block, second = StemBlock(16, 8, 256, 512, 5), InvertedResidual(8, 48, 16, 128, 256, stride=2)
    assert pair == StemPair(block, second)
    assert space.first_two(Op(1, 5), Op(1, 3)) == [
        block, InvertedResidual(8, 8, 16, 128, 256, stride=2, expand=False),
    ]  # fmt: skip
    assert space.first_two(Op(3, 5), Op(6, 3)) == [
        Stem(16, 256, 512), InvertedResidual(16, 48, 8, 128, 256, 5), second,
    ]  # fmt: skip


def test_the_papers_counts():
    keys = Space(PAPER, 1.0).keys(MRMS_GENOTYPE)
    assert sum(key.parameters for key in keys) == 2_055_795
    assert round(sum(key.macs for key in keys) / 1e9, 4) == 7.3273


def test_an_entry_of_another_resolution_or_width_is_named():
    space = Space(SMALL, 0.5)
    space.check(space.all_keys(), "t.jsonl")
    for other in (Space(PAPER, 0.5), Space(SMALL, 1.0)):
        with pytest.raises(UserError, match=r"t.jsonl: '.*' is no entry of the space at 256x512"):
            space.check(other.operator_keys(), "t.jsonl")
