import math
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.cli.options import read_resolution, read_triple
from lut.errors import UserError


@given(st.text() | st.from_regex(r"-?[0-9.e]{0,5},-?[0-9.e]{0,5},-?[0-9.einfa]{0,5}"))
def test_any_text_is_three_finite_numbers_or_a_user_error(text):
    with suppress(UserError):
        triple = read_triple("--mean", text)
        assert triple is not None
        assert len(triple) == 3
        assert all(math.isfinite(number) for number in triple)


@given(st.tuples(*[st.floats(allow_nan=False, allow_infinity=False)] * 3))
def test_three_numbers(triple):
    assert read_triple("--std", ",".join(map(repr, triple))) == triple


@pytest.mark.parametrize(
    "text", ["", "1", "1,2", "1,2,3,4", "a,b,c", "nan,1,1", "1,inf,1", "1;2;3"]
)
def test_bad_triples(text):
    with pytest.raises(UserError, match=r"--mean .*write three numbers"):
        read_triple("--mean", text)


def test_nothing_given():
    assert read_resolution(None) is None
    assert read_triple("--mean", None) is None
