import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hmseg.genotype import (
    GROUPS,
    MRMS_GENOTYPE,
    Genotype,
    Op,
    parse_genotype,
    random_genotype,
)
from lut.errors import UserError


@given(st.integers(0, 2**32))
def test_both_texts_round_trip(seed):
    genotype = random_genotype(random.Random(seed))
    assert Genotype.from_json(genotype.to_json()) == genotype
    assert parse_genotype(str(genotype)) == genotype


def test_space_has_22_layers_and_the_stated_size():
    assert sum(group.layers for group in GROUPS) == 22
    size = 9
    for group in GROUPS:
        size *= 9 * 10 ** (group.layers - 1)
    assert size == 9**7 * 10**15 * 9


def test_random_genotypes_cover_every_choice():
    rng = random.Random(0)
    drawn = [random_genotype(rng) for _ in range(500)]
    assert {(g.medium_tenths, g.low_tenths) for g in drawn} == {
        (m, low) for m in (4, 5, 6) for low in (4, 5, 6)
    }
    assert len({g.ops[1][1] for g in drawn}) == 10
    assert len({g.ops[0][0] for g in drawn}) == 9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format_version=2), "format_version"),
        (lambda d: d["ops"].pop("s3"), "'ops'"),
        (lambda d: d["ops"].update(s1=["e2k3"]), "e2k3"),
        (lambda d: d["ops"].update(s1=["skip"]), "cannot be skipped"),
        (lambda d: d["ops"].update(s1=["e1k3", "e1k3"]), "2 layers"),
        (lambda d: d["ops"].update(s1="e1k3"), "must be a list"),
        (lambda d: d["ops"].update(s1=[7]), "7"),
        (lambda d: d["ratios"].update(low=0.7), "0.7"),
        (lambda d: d["ratios"].update(low="x"), "'x'"),
        (lambda d: d["ratios"].update(low=True), "True"),
        (lambda d: d.pop("ratios"), "'ratios'"),
    ],
)
def test_json_that_names_no_network_is_refused(change, message):
    data = json.loads(MRMS_GENOTYPE.to_json())
    change(data)
    with pytest.raises(UserError, match=message):
        Genotype.from_json(json.dumps(data))


@given(st.text() | st.just(str(MRMS_GENOTYPE)).map(lambda s: s.replace("e6k3", "e6k9", 1)))
def test_any_other_text_is_a_user_error(text):
    for read in (parse_genotype, Genotype.from_json):
        with pytest.raises(UserError):
            read(text)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=5))
def test_any_other_json_is_a_user_error(value):
    with pytest.raises(UserError):
        Genotype.from_json(json.dumps({"format_version": 1, "ops": value, "ratios": value}))


def test_mrms_is_in_the_space():
    depths = [sum(op is not None for op in ops) for ops in MRMS_GENOTYPE.ops]
    assert depths == [1, 2, 3, 4, 3, 3, 1]
    assert MRMS_GENOTYPE.ops[0] == (Op(1, 3),)
