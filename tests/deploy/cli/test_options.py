import math
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.cli.options import (
    SourceOptions,
    TargetOptions,
    open_model,
    read_resolution,
    read_values,
    target_text,
)
from lut.errors import UserError


@given(st.text() | st.from_regex(r"(-?[0-9.einfa]{0,5},){0,4}-?[0-9.e]{0,5}"))
def test_any_text_is_finite_numbers_for_the_channels_or_a_user_error(text):
    with suppress(UserError):
        values = read_values("--mean", text)
        assert values is not None
        assert len(values) in (1, 3, 4)
        assert all(math.isfinite(number) for number in values)


@given(
    st.sampled_from([1, 3, 4]).flatmap(
        lambda count: st.tuples(*[st.floats(allow_nan=False, allow_infinity=False)] * count)
    )
)
def test_a_number_for_each_channel(values):
    assert read_values("--std", ",".join(map(repr, values))) == values


@pytest.mark.parametrize("text", ["", "1,2", "1,2,3,4,5", "a,b,c", "nan,1,1", "1,inf,1", "1;2;3"])
def test_bad_values(text):
    with pytest.raises(UserError, match=r"--mean .*write one number for each channel"):
        read_values("--mean", text)


@pytest.mark.parametrize(
    ("given_options", "message"),
    [
        (
            SourceOptions(mean="123.675,116.28,103.53", std="58.395,57.12,57.375"),
            r"--mean 123.675,116.28,103.53: .* divided by 255: --mean 0.485,0.456,0.406$",
        ),
        (SourceOptions(std="58.395,57.12,57.375"), r"divided by 255: --std 0.229,0.224,0.225$"),
        (SourceOptions(mean="-1,0,0"), r"--mean -1,0,0: the numbers must lie in 0..1"),
        (SourceOptions(std="1e-30,1,1"), r"--std 1e-30,1,1: the numbers must be above 0, at least"),
        (SourceOptions(mean="300,0,0"), r"--mean 300,0,0: the numbers must lie in 0..1, as the im"),
        (SourceOptions(std="1,0,1"), r"--std 1,0,1: the numbers must be above 0"),
        (SourceOptions(threshold=math.nan), "--threshold nan"),
    ],
)
def test_refused_before_the_file_is_opened(given_options, message):
    with pytest.raises(UserError, match=message):
        open_model("none.onnx", given_options)


def test_nothing_given():
    assert read_resolution(None) is None
    assert read_values("--mean", None) is None


def test_an_empty_target_is_not_this_machine():
    """A variable of a script that is not set, perhaps."""
    assert target_text(None, None) == "cpu"
    with pytest.raises(UserError, match="target"):
        TargetOptions(target="").resolve()
