import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.report.charts.axes import Scale, clipped, colour, scale, show

ABOVE = st.floats(1e-300, 1e300)
ANY = st.floats(-1e300, 1e300)


def test_a_value_has_its_place():
    linear, log = Scale(0, 10, 100, 200), Scale(1, 100, 0, 200, log=True)
    assert [linear.at(v) for v in (0, 5, 10, 11)] == [100, 150, 200, 200]
    assert [log.at(v) for v in (1, 10, 100)] == pytest.approx([0, 100, 200])


def test_ticks_are_round():
    assert Scale(0, 10, 0, 1).ticks() == [0, 2, 4, 6, 8, 10]
    assert Scale(0.9, 3.1, 0, 1).ticks() == pytest.approx([1, 1.5, 2, 2.5, 3])
    assert Scale(0.9, 3.1, 0, 1, whole=True).ticks() == [1, 2, 3]
    assert Scale(0.5, 200, 0, 1, log=True).ticks() == pytest.approx([1, 3, 10, 30, 100])
    assert Scale(1, 30, 0, 1, log=True).ticks() == pytest.approx([1, 2, 5, 10, 20])
    assert Scale(1e-4, 1e2, 0, 1, log=True).ticks() == pytest.approx([10**n for n in range(-4, 3)])


@given(st.lists(ANY, max_size=5), st.booleans(), st.booleans())
def test_every_value_is_inside(values, zero, whole):
    found = scale(values, 0.0, 100.0, zero=zero, whole=whole)
    assert found.low < found.high
    assert all(0 <= found.at(value) <= 100 for value in values)
    if zero:
        assert found.low <= 0 <= found.high
    assert len(found.ticks()) < 20
    assert all(math.isfinite(tick) for tick in found.ticks())


@given(st.lists(ABOVE, max_size=5))
def test_every_value_is_inside_of_powers_too(values):
    found = scale([0.0, *values], 0.0, 100.0, log=True)
    assert 0 < found.low < found.high
    assert all(0 <= found.at(value) <= 100 for value in values)
    assert all(math.isfinite(tick) for tick in found.ticks())


def test_values_beside_an_axis():
    assert list(map(show, (0, 0.5, 12.5, 1234.4, 0.25, 1e-9, 3e8))) == [
        "0", "0.5", "12.5", "1,234", "0.25", "1e-09", "3e+08",
    ]  # fmt: skip


def test_series_beyond_the_colours_are_hollow():
    assert (colour(0), colour(7), colour(8)) == ("s0", "s7", "s0 again")
    assert (clipped("abc", 3), clipped("abcd", 3)) == ("abc", "ab…")
