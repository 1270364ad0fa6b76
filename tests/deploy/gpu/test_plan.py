import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.gpu.plan import ALIGNMENT, Entry, Launch, Life, Plan, Region, aligned, place
from lut.errors import UserError

LAUNCH = Launch("k", (4, 2, 1), (32, 1, 1), (Region(0, 8), Region(256, 64)))
PLAN = Plan(1024, 256, Region(256, 64), {"main": Entry((LAUNCH,), Region(512, 16))})

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


def test_json():
    assert Plan.from_json(PLAN.to_json()) == PLAN


@pytest.mark.parametrize(
    "change",
    [
        {"arena_bytes": 300}, {"arena_bytes": -1}, {"arena_bytes": True}, {"constant_bytes": 2000},
        {"input": [1000, 100]}, {"input": [0]}, {"entries": {"main": {}}}, {"entries": 5},
        {"entries": {"main": {"output": [0, 1], "launches": [["k", [1, 1], [1, 1, 1], []]]}}},
        {"entries": {"main": {"output": [0, 9999], "launches": []}}},
    ],
)  # fmt: skip
def test_an_unsound_plan(change):
    """Nothing that a plan says may reach outside its memory."""
    with pytest.raises(UserError, match="not sound"):
        Plan.from_json(json.dumps(json.loads(PLAN.to_json()) | change))
    with pytest.raises(UserError, match="not sound"):
        Plan.from_json("{")
