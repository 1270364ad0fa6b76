import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.cpu.rows.ring import Band
from deploy.cpu.window import Window

WINDOWS = st.builds(
    Window,
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    kernel=st.sampled_from([3, 5, 7]),
    stride=st.sampled_from([1, 2]),
    dilation=st.sampled_from([1, 2, 4]),
)


@st.composite
def strips(draw):
    """A band, and the first column of one of its strips."""
    window = draw(WINDOWS)
    band = Band(window, draw(st.integers(1, window.out_width)))
    return band, draw(st.integers(0, window.out_width - band.strip))


@given(strips())
def test_a_strip_sees_its_taps_and_no_more(strip):
    band, left = strip
    window, seen = band.window, set()
    for column in range(left, left + band.strip):
        first = column * window.stride - window.pad
        seen |= {first + tap * window.dilation for tap in range(window.kernel)}
    assert min(seen) == band.origin(left)
    assert max(seen) == band.origin(left) + band.columns - 1


@given(strips())
def test_a_span_has_what_a_strip_sees_of_the_map(strip):
    band, left = strip
    width, origin = band.window.width, band.origin(left)
    seen = range(max(0, origin), min(width, origin + band.columns))
    span = band.span(left)
    made = range(max(0, span.begin), min(width, span.begin + span.columns))
    assert made.start <= seen.start
    assert made.stop >= seen.stop
    assert span.inside <= len(made)
    if band.strip == band.window.out_width:
        assert span.whole


@pytest.mark.parametrize("strip", [0, 21])
def test_strips_are_no_wider_than_the_row(strip):
    with pytest.raises(ValueError, match=f"strips of {strip} columns in rows of 20"):
        Band(Window(8, 40, 3, 2, 1), strip)
