import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.gpu.plan import ALIGNMENT, Entry, Launch, Life, Plan, Region, aligned, place
from deploy.gpu.program import GpuProgram, choose_code
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


def program(**code):
    return GpuProgram(PLAN, b"\0" * 256, **code)


def test_members():
    whole = program(cubins={"sm_61": b"a"}, ptx={"compute_90": b"b"})
    assert GpuProgram.from_members(whole.members()) == whole
    with pytest.raises(UserError, match="not the files"):
        GpuProgram.from_members(whole.members() | {"gpu/../../etc": b""})
    with pytest.raises(UserError, match="constants"):
        GpuProgram.from_members(whole.members() | {"gpu/constants.bin": b""})


@pytest.mark.parametrize(
    ("capability", "name"),
    [
        (61, "sm_61"), (80, "sm_80"), (86, "sm_86"), (89, "sm_86"), (90, "compute_86"),
        (120, "compute_86"),
        # Boards (Jetson): no other machine code than their own, and theirs on nothing else.
        (72, "sm_72"), (87, "compute_86"),
    ],
)  # fmt: skip
def test_code_of_the_gpus_own_generation_or_ptx(capability, name):
    cubins = {arch: arch.encode() for arch in ("sm_61", "sm_72", "sm_80", "sm_86")}
    assert choose_code(program(cubins=cubins, ptx={"compute_86": b""}), capability)[0] == name


@pytest.mark.parametrize("capability", [52, 60, 62, 75])
def test_no_code_for_the_gpu(capability):
    cubins = {"sm_61": b"", "sm_80": b""}
    with pytest.raises(UserError, match=f"no code for this GPU, sm_{capability} .it has sm_61"):
        choose_code(program(cubins=cubins, ptx={"compute_80": b""}), capability)
