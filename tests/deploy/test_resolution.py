import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.resolution import MAX_SIDE, MIN_SIDE, Resolution, parse_resolution
from lut.errors import UserError

sides = st.integers(MIN_SIDE, MAX_SIDE)


@given(sides, sides)
def test_round_trip(height: int, width: int):
    resolution = Resolution(height, width)
    assert parse_resolution(str(resolution)) == resolution
    assert parse_resolution(f" {height}X{width} ") == resolution


def test_height_comes_first():
    assert parse_resolution("256x512").height == 256


@pytest.mark.parametrize(
    "text",
    ["256", "0x512", "-1x5", "99999x99999", "x", "", "axb", "256x512x3", "256 x 512", "25.6x51.2",
     "64x63", "16385x64", "+64x64", "6_4x64", "٦٤x٦٤", "64x" + "9" * 5000, "1e3x64", "64\nx64"],
)  # fmt: skip
def test_bad_texts_are_one_clear_line(text: str):
    with pytest.raises(UserError) as caught:
        parse_resolution(text)
    assert "\n" not in str(caught.value)


@given(st.text() | st.from_regex(r"[-+]?[0-9]{0,6}x[-+]?[0-9]{0,6}"))
def test_any_text_is_a_resolution_within_bounds_or_a_user_error(text: str):
    try:
        height, width = parse_resolution(text)
    except UserError:
        return
    assert MIN_SIDE <= height <= MAX_SIDE
    assert MIN_SIDE <= width <= MAX_SIDE
