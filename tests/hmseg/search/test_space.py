"""What each dimension opens, and what the others keep."""

import random

import pytest

from hmseg.genotype import MRMS_GENOTYPE, Op, random_genotype
from hmseg.operators import OPERATORS
from hmseg.search.space import (
    CANDIDATES,
    DIMENSIONS,
    LAYERS,
    parse_dimensions,
    search_space,
    to_genotype,
)
from lut.errors import UserError

OWN = [op for ops in MRMS_GENOTYPE.ops for op in ops]


def test_the_whole_space_is_the_paper_s():
    space = search_space(DIMENSIONS, MRMS_GENOTYPE)
    count = 1
    for layer in (*space.layers, *space.ratios):
        count *= len(layer)
    assert count == 9**7 * 10**15 * 9  # 4.30e22
    for (_, layer), candidates in zip(LAYERS, space.layers, strict=True):
        assert candidates == (CANDIDATES if layer else OPERATORS)


def test_operators_alone_keep_the_depth_and_the_ratios():
    space = search_space(("operators",), MRMS_GENOTYPE)
    for own, candidates in zip(OWN, space.layers, strict=True):
        assert candidates == (OPERATORS if own else (None,))
    assert space.ratios == ((5,), (5,))


def test_depth_alone_keeps_the_operators():
    space = search_space(("depth",), MRMS_GENOTYPE)
    for own, (_, layer), candidates in zip(OWN, LAYERS, space.layers, strict=True):
        op = own or Op(6, 3)
        assert candidates == ((op, None) if layer else (op,))


def test_resolution_alone_is_mrms_at_nine_pairs():
    space = search_space(("resolution",), MRMS_GENOTYPE)
    assert [candidates for candidates in space.layers] == [(op,) for op in OWN]
    assert space.ratios == ((4, 5, 6), (4, 5, 6))


def test_dimensions_are_read_in_any_order():
    assert parse_dimensions("resolution,operators") == ("operators", "resolution")
    with pytest.raises(UserError, match="unknown dimension 'width'"):
        parse_dimensions("operators,width")
    with pytest.raises(UserError, match="unknown dimension ''"):
        parse_dimensions("")


def test_choices_make_the_genotype():
    genotype = random_genotype(random.Random(1))
    ops = [op for ops in genotype.ops for op in ops]
    assert to_genotype(ops, genotype.medium_tenths, genotype.low_tenths) == genotype
