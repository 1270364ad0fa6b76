from hypothesis import given
from hypothesis import strategies as st

from deploy.arena import ALIGNMENT, Life, aligned, place

lives = st.lists(
    st.tuples(st.integers(1, 5000), st.integers(0, 20), st.integers(0, 20)).map(
        lambda t: Life(t[0], min(t[1:]), max(t[1:]))
    ),
    max_size=30,
)


@given(lives)
def test_maps_that_live_together_lie_apart(drawn):
    offsets, total = place(drawn)
    for i, life in enumerate(drawn):
        assert offsets[i] % ALIGNMENT == 0
        assert offsets[i] + life.size <= total
        for j, other in enumerate(drawn[:i]):
            if life.first <= other.last and other.first <= life.last:
                apart = offsets[i] + life.size <= offsets[j]
                assert apart or offsets[j] + other.size <= offsets[i]


def test_maps_one_after_the_other_share():
    offsets, total = place([Life(1000, 0, 1), Life(1000, 2, 3), Life(500, 1, 2)])
    assert offsets[0] == offsets[1] == 0
    assert total == aligned(1000) + aligned(500)
