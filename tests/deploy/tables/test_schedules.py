"""Which tuning records a table depends on; the records are made up, the operations are the
space's. What networks of a space call, test_networks.py compares."""

from dataclasses import replace

import pytest

from deploy.backends import backend_of
from deploy.schedules import schedule_fields
from deploy.tables.schedules import digest, schedules_of
from deploy.targets import resolve_target
from deploy.tuning.records import Record, append, load_records
from hmseg.operators import Space
from lut.ops import expand, with_dtype

SPACE, LARGER = Space((64, 128), 0.5), Space((128, 128), 0.5)


@pytest.fixture
def win(tmp_path, monkeypatch):
    """Leaves records of schedules that won in the user's folder, the rule's for each operation."""
    monkeypatch.setenv("HMSEG_HOME", str(tmp_path))

    def leave(target, threads, *operations, **changes):
        backend = backend_of(target)
        kernels = backend.kernels(target, threads, {})
        for op in operations:
            values = {
                "target": target.key, "threads": threads,
                "kernels_version": backend.kernels_version, "spec": str(op),
                "schedule": schedule_fields(kernels.rule(op)), "rule_ns": (200,),
                "candidate_ns": (100,), "refused": "", "machine": "a machine", "versions": {},
                "date": "now", **changes,
            }  # fmt: skip
            append(Record(**values), tmp_path / "tuning" / "records.jsonl")

    return leave


def called(space, target):
    """What the networks of a space call."""
    has = backend_of(target).has
    parts = {str(p): p for entry in space.all_keys() for p in expand(entry, has)}
    return [parts[text] for text in sorted(parts)]


@pytest.mark.parametrize(
    ("target", "threads"),
    [(resolve_target("x86-64-v3"), 2), (resolve_target("cuda", "sm_61"), 0)],
    ids=["cpu", "gpu"],
)
def test_those_of_the_space_and_no_others(win, target, threads):
    """A record of the space changes the digest; those of another size and of another network, with
    which the user's folder is full after tuning there, do not."""
    own, others = (called(space, target) for space in (SPACE, LARGER))
    mine = next(op for op in own if op not in others)
    other = next(op for op in others if op not in own)
    win(target, threads, mine, spec="tvm:0123", schedule={"trace": []})
    assert digest(schedules_of(SPACE, target, threads)) == "rule"
    win(target, threads, other)
    assert digest(schedules_of(SPACE, target, threads)) == "rule"
    assert list(schedules_of(LARGER, target, threads)) == [str(other)]
    win(target, threads, mine)
    assert list(schedules_of(SPACE, target, threads)) == [str(mine)]
    digests = {digest(schedules_of(space, target, threads)) for space in (SPACE, LARGER)}
    assert len(digests - {"rule"}) == 2


def test_every_kernel_of_the_space(win, tmp_path):
    """Parts of entries are in it too; another number of threads has none of them."""
    target = resolve_target("x86-64-v3")
    operations = called(SPACE, target)[::9]
    win(target, 2, *operations)
    assert len(load_records([tmp_path / "tuning"])) == len(operations)
    assert set(schedules_of(SPACE, target, 2)) == set(map(str, operations))
    assert digest(schedules_of(SPACE, target, 1)) == "rule"


def test_in_a_low_precision_they_are_of_its_operations(win):
    """A record names what its kernel stores, and in 8 bits no activation that bytes do."""
    for precision, dtype in (("bf16", "bfloat16"), ("int8", "int8")):
        target = resolve_target("znver4", precision=precision)
        mine = next(op for op in called(SPACE, target) if op.kind == "inverted_residual")
        stored = with_dtype(mine, dtype)
        if dtype == "int8":
            stored = replace(stored, act="none")
        win(target, 2, stored)
        assert list(schedules_of(SPACE, target, 2)) == [str(stored)]
        assert schedules_of(LARGER, target, 2) == {}


def test_only_winners_of_today_s_kernels(win):
    target = resolve_target("x86-64-v3")
    first, second, *_ = called(SPACE, target)
    win(target, 2, first, candidate_ns=(199,))
    win(target, 2, second, kernels_version=0)
    assert schedules_of(SPACE, target, 2) == {}


def test_a_digest_is_of_the_schedules_whatever_their_order():
    one, two = {"a": {"tile": 1}, "b": {"tile": 2}}, {"b": {"tile": 2}, "a": {"tile": 1}}
    assert digest(one) == digest(two) != digest(one | {"a": {"tile": 3}})
    assert len(digest(one)) == 16
    assert digest({}) == "rule"
