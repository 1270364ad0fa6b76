import json
import tomllib
from dataclasses import asdict, replace
from pathlib import Path

import pytest

import deploy
from deploy.cpu.isa import AVX2, Tile
from deploy.cpu.kernels import KERNELS_VERSION, CpuKernels
from deploy.schedules import schedule_fields, with_fields
from deploy.targets import resolve_target
from deploy.tuning import records
from deploy.tuning.records import (
    MIN_GAIN,
    SHIPPED,
    Record,
    append,
    default_folder,
    load_records,
    matching,
    trials_without_gain,
    tuned_schedules,
    winners,
)
from lut.errors import UserError
from lut.ops import Pointwise

OP = Pointwise(32, 48, 16, 32)
RULE = CpuKernels(AVX2, 2).rule(OP)
OTHER = replace(RULE, tile=Tile(6, 2))


@pytest.fixture
def target():
    return resolve_target("x86-64-v3")


@pytest.fixture
def record(target):
    return Record(
        target=target.key,
        threads=2,
        kernels_version=KERNELS_VERSION,
        spec=str(OP),
        schedule=schedule_fields(OTHER),
        rule_ns=(1200, 1150, 1300),
        candidate_ns=(1000, 1000, 1000),
        refused="",
        machine="a machine",
        versions={"apache-tvm": "0"},
        date="2026-01-01T00:00:00+00:00",
    )


def test_gain_is_that_of_the_worst_round(record):
    assert record.gain == pytest.approx(1.15)
    assert replace(record, candidate_ns=(), rule_ns=(), refused="wrong").gain == 0


def test_trials_without_gain_count_from_the_last_clear_one(record):
    def after(*gains):
        return trials_without_gain(
            replace(record, rule_ns=(round(1000 * gain),), candidate_ns=(1000,)) for gain in gains
        )

    assert after() == 0
    assert after(0.9, 1.004) == 2
    assert after(0.9, 1.06) == 0
    assert after(1.10, 1.12, 0.8) == 2  # 1.12 is no clear gain over 1.10
    assert after(1.10, 1.12, 1.16, 0.8) == 1
    refused = replace(record, rule_ns=(), candidate_ns=(), refused="wrong")
    assert trials_without_gain([record, refused]) == 1


def test_only_a_clear_win_is_kept(record):
    assert winners([record]) == {str(OP): schedule_fields(OTHER)}
    lucky = replace(record, candidate_ns=(600, 600, 1290))  # one round without gain
    assert lucky.gain < MIN_GAIN
    assert winners([lucky]) == {}
    better = replace(record, schedule={"best": 1}, candidate_ns=(900, 900, 900))
    assert winners([record, better, lucky]) == {str(OP): {"best": 1}}


def test_records_of_another_key_are_not_used(record, target):
    version = KERNELS_VERSION
    assert matching([record], target.key, 2, version) == [record]
    assert matching([record], target.key, 1, version) == []
    assert matching([record], resolve_target("x86-64-v4").key, 2, version) == []
    assert matching([record], target.key, 2, version + 1) == []
    assert matching([replace(record, kernels_version=0)], target.key, 2, version) == []


def test_round_trip_and_a_torn_last_line(record, target, tmp_path):
    path = tmp_path / "r.jsonl"
    append(record, path)
    append(replace(record, threads=1), path)
    assert load_records([tmp_path]) == [record, replace(record, threads=1)]
    with path.open("a") as file:
        file.write('{"target": "cut')
    with pytest.warns(UserWarning, match="cut short"):
        assert len(load_records([tmp_path])) == 2
    with pytest.warns(UserWarning, match="cut short"):
        assert tuned_schedules(target.key, 2, KERNELS_VERSION, [tmp_path]) == winners([record])


@pytest.mark.parametrize("change", [lambda d: d.pop("date"), lambda d: d.update(extra=1)])
def test_unknown_and_missing_fields_are_named(record, tmp_path, change):
    values = asdict(record)
    change(values)
    (tmp_path / "r.jsonl").write_text(json.dumps(values) + "\n")
    with pytest.raises(UserError, match=r"record 1.*(date|extra)"):
        load_records([tmp_path])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rule_ns": None}, "rule_ns is None, not nanoseconds"), ({"rule_ns": "abc"}, "rule_ns is"),
        ({"candidate_ns": [0, 0, 0]}, "candidate_ns is"), ({"rule_ns": [True] * 3}, "rule_ns is"),
        ({"rule_ns": [float("nan")] * 3}, "rule_ns is"),
        ({"rule_ns": [10**400] * 3}, "rule_ns is"),
        ({"rule_ns": [1]}, "different numbers of rounds"), ({"spec": [1]}, "'spec' is"),
        ({"schedule": "x"}, "schedule is 'x', not fields"),
        ({"versions": {"a": 1}}, "versions are"),
        ({"threads": "2"}, "'threads' is '2', not int"),
    ],
)  # fmt: skip
def test_fields_of_another_type_are_named(record, tmp_path, change, message):
    (tmp_path / "r.jsonl").write_text(json.dumps(asdict(record) | change) + "\n")
    with pytest.raises(UserError, match=f"r.jsonl, record 1: .*{message}"):
        load_records([tmp_path])


@pytest.mark.parametrize("line", [b"\0" * 50, b"[" * 100_000, b"", b"\xff", b"5"])
def test_lines_that_are_no_records(tmp_path, line):
    (tmp_path / "r.jsonl").write_bytes(line + b"\n")
    with pytest.raises(UserError, match=r"r\.jsonl, line 1: "):
        load_records([tmp_path])


@pytest.mark.parametrize(
    "change", [{"segments": "2"}, {"segments": 2.0}, {"tile": {"px": None, "ob": 2}}, {"tile": 5}]
)
def test_a_schedule_with_a_value_of_another_type(change):
    with pytest.raises(UserError, match="tune again"):
        with_fields(RULE, schedule_fields(RULE) | change)


def test_kernels_take_what_was_measured():
    kernels = CpuKernels(AVX2, 2, {str(OP): schedule_fields(OTHER)})
    assert kernels.schedule(OP) == OTHER
    assert kernels.rule(OP) == RULE
    assert kernels.schedule(replace(OP, cin=40)) != OTHER
    assert with_fields(RULE, schedule_fields(RULE)) == RULE
    with pytest.raises(UserError, match="tune again"):
        with_fields(RULE, {"tile": 1})


def test_folder_of_the_user(monkeypatch, tmp_path):
    monkeypatch.setenv("HMSEG_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "tuning"
    monkeypatch.delenv("HMSEG_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "hmseg" / "tuning"


def test_shipped_records_are_found_by_their_key(record, target, tmp_path, monkeypatch):
    """Without naming a folder: those that ship and the user's own, for this target and threads."""
    shipped, home = tmp_path / "data", tmp_path / "home"
    monkeypatch.setattr(records, "SHIPPED", shipped)
    monkeypatch.setenv("HMSEG_HOME", str(home))
    assert tuned_schedules(target.key, 2, KERNELS_VERSION) == {}  # neither folder exists
    shipped.mkdir()
    append(record, shipped / "x86-64-v3-2-threads.jsonl")
    assert tuned_schedules(target.key, 2, KERNELS_VERSION) == winners([record])
    assert tuned_schedules(target.key, 1, KERNELS_VERSION) == {}
    assert tuned_schedules(resolve_target("x86-64-v4").key, 2, KERNELS_VERSION) == {}
    faster = replace(record, schedule={"own": 1}, candidate_ns=(900, 900, 900))
    (home / "tuning").mkdir(parents=True)
    append(faster, home / "tuning" / "mine.jsonl")
    assert tuned_schedules(target.key, 2, KERNELS_VERSION) == {str(OP): {"own": 1}}


def test_what_ships_is_packaged():
    settings = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())
    patterns = settings["tool"]["setuptools"]["package-data"]["deploy"]
    package = Path(deploy.__file__).parent
    assert (SHIPPED / "any-2-threads.jsonl").relative_to(package).match("tuning/data/*.jsonl")
    assert "tuning/data/*.jsonl" in patterns


def test_every_shipped_record_is_sound():
    for record in load_records([SHIPPED]):
        assert record.machine
        assert record.date
        assert set(record.versions) >= {"apache-tvm"}
        assert len(record.rule_ns) == len(record.candidate_ns)
        assert all(ns > 0 for ns in (*record.rule_ns, *record.candidate_ns))
        assert bool(record.refused) != bool(record.rule_ns)
