import json

import pytest

from deploy.arena import Region
from deploy.gpu.plan import Entry, Launch, Plan
from lut.errors import UserError

LAUNCH = Launch("k", (4, 2, 1), (32, 1, 1), (Region(0, 8), Region(256, 64)))
PLAN = Plan(1024, 256, Region(256, 64), {"main": Entry((LAUNCH,), Region(512, 16))})


def test_json():
    assert Plan.from_json(PLAN.to_json()) == PLAN


@pytest.mark.parametrize(
    "change",
    [
        {"arena_bytes": 300}, {"arena_bytes": -1}, {"arena_bytes": True}, {"constant_bytes": 2000},
        {"input": [1000, 100]}, {"input": [0]}, {"entries": {"main": {}}}, {"entries": 5},
        {"entries": {"main": {"output": [0, 1], "launches": [["k", [1, 1], [1, 1, 1], []]]}}},
        {"entries": {"main": {"output": [0, 9999], "launches": []}}},
        {"entries": {}}, {"entries": {"logits": {"output": [512, 16], "launches": []}}},
    ],
)  # fmt: skip
def test_an_unsound_plan(change):
    """Nothing that a plan says may reach outside its memory."""
    with pytest.raises(UserError, match="not sound"):
        Plan.from_json(json.dumps(json.loads(PLAN.to_json()) | change))
    with pytest.raises(UserError, match="not sound"):
        Plan.from_json("{")
