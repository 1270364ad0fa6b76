"""The loop of tuning on a bench that is made up: what is measured, in which order, kept and gone on
with. tests/deploy/trials has the benches that measure; test_search.py a real search."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from itertools import count
from types import SimpleNamespace

import pytest

from deploy.schedules import TRACE
from deploy.targets import resolve_target
from deploy.trials.bench import Measurement
from deploy.tuning import tune as tuning
from deploy.tuning.metaschedule import Found
from deploy.tuning.records import Record, append, load_records, winners
from deploy.tuning.tune import SEARCH_TRIALS, Limits, tune
from lut.errors import UserError, WorkError
from lut.ops import Depthwise, Pointwise, Resize

SLOW, MIDDLE, FAST = Pointwise(8, 8, 4, 4), Depthwise(8, 4, 4), Resize(8, 4, 4, 2, 2)
OPERATIONS = {str(op): op for op in (MIDDLE, FAST, SLOW)}
TIMES_NS = dict(zip(OPERATIONS, (200, 100, 300), strict=True))
NEST = "tvm:0123456789abcdef01234567"
TARGET = resolve_target("x86-64-v3")
VERSION = 7
KILLED = """
import sys
from pathlib import Path
from tests.deploy.tuning.test_tune import *
bench = Bench(pause_s=0.02)
with pytest.MonkeyPatch.context() as patch:
    use(bench, patch)
    run(Path(sys.argv[1]), Limits(1000, 1000), on_trial=lambda t: print(t.number, flush=True))
"""


@dataclass(frozen=True)
class Schedule:
    size: int


class Kernels:
    """The rule's size is 8; alternatives are near the best."""

    def rule(self, _operation):
        return Schedule(8)

    def alternatives(self, _operation, best):
        return iter([Schedule(best.size + step) for step in (1, -1, 2, -2, 0, 1)])


@dataclass
class Bench:
    """A candidate takes what `ns` says, the rule's schedule 1000."""

    ns: Callable[[str, int], int] = lambda _text, _size: 1000
    times_ns: dict = field(default_factory=lambda: dict(TIMES_NS))
    nests: dict = field(default_factory=dict)
    at_once: int = 1
    per_kernel: int = 1
    refused: dict = field(default_factory=dict)
    pause_s: float = 0.0
    kernels = Kernels()
    operations = OPERATIONS

    def __post_init__(self):
        self.batches = []

    def measure(self, batch, keep, end):
        self.batches.append(batch)
        for candidate in batch:
            if tuning.time.monotonic() < end:
                time.sleep(self.pause_s)
                keep(candidate, self._measured(candidate))

    def _measured(self, candidate):
        size = candidate.fields.get("size", 0)
        if size in self.refused:
            return Measurement("a machine", refused=self.refused[size])
        return Measurement("a machine", (1000,) * 5, (self.ns(candidate.text, size),) * 5)


class Backend(SimpleNamespace):
    kernels_version = VERSION

    def record_threads(self, threads):
        return threads

    def kernels(self, *_):
        return "the kernels"

    def versions(self):
        return {"compiler": "1.2"}

    def tuning_bench(self, job, rule, threads, remote, *, emulated):
        self.asked = (job.target, job.kernels, rule, threads, remote, emulated)
        return self.bench


def use(bench, patch):
    backend = Backend(bench=bench)
    patch.setattr(tuning, "backend_of", lambda _target: backend)
    return backend


def run(folder, limits, *, target=TARGET, threads=2, **options):
    return tune("a graph", target, folder, "the rule", limits, threads=threads, **options)


@pytest.fixture
def bench(monkeypatch):
    bench = Bench()
    bench.backend = use(bench, monkeypatch)
    return bench


def specs(records):
    return [record.spec for record in records]


def sizes(records):
    return [record.schedule["size"] for record in records]


class TestRecords:
    def test_each_says_what_was_measured_where_and_with_what(self, bench, tmp_path):
        bench.ns = lambda text, size: 990 + size
        bench.refused = {7: "wrong result, relative error 0.5"}
        records = run(tmp_path, Limits(3))
        (path,) = tmp_path.iterdir()
        assert path.name == "x86-64-v3-2-threads.jsonl"
        assert load_records([tmp_path]) == records
        for record in records:
            assert (record.target, record.threads) == (TARGET.key, 2)
            assert (record.kernels_version, record.machine) == (VERSION, "a machine")
            assert record.versions == {
                "compiler": "1.2", "apache-tvm": version("apache-tvm"),
                "apache-tvm-ffi": version("apache-tvm-ffi"),
            }  # fmt: skip
            assert record.date
        first, second, _ = records
        assert (first.schedule, first.rule_ns) == ({"size": 9}, (1000,) * 5)
        assert (first.candidate_ns, first.refused) == ((999,) * 5, "")
        assert (second.schedule, second.candidate_ns) == ({"size": 7}, ())
        assert second.refused == "wrong result, relative error 0.5"

    @pytest.mark.parametrize(
        ("target", "threads", "name"),
        [
            (resolve_target("x86-64-v4"), 1, "x86-64-v4-1-threads.jsonl"),
            (resolve_target("cuda", "sm_61"), 0, "sm_61.jsonl"),
            (resolve_target("cuda", "sm_61", "fp16"), 0, "sm_61-fp16.jsonl"),
        ],
    )
    def test_a_file_for_each_target_and_number_of_threads(
        self, bench, tmp_path, target, threads, name
    ):
        run(tmp_path, Limits(1), target=target, threads=threads)
        assert [path.name for path in tmp_path.iterdir()] == [name]

    def test_one_is_on_disk_when_it_is_told(self, bench, tmp_path):
        run(
            tmp_path, Limits(5),
            on_trial=lambda trial: len(load_records([tmp_path])) == trial.number
            or pytest.fail("not yet on disk"),
        )  # fmt: skip

    def test_what_is_told(self, bench, tmp_path):
        bench.ns = lambda text, size: {9: 500, 7: 800}.get(size, 1000)
        told = []
        run(tmp_path, Limits(2), on_trial=told.append)
        assert [trial.number for trial in told] == [1, 2]
        assert {trial.spec for trial in told} == {str(SLOW)}
        assert (told[0].gain, told[0].best_gain) == (2, 2)
        assert told[1].best_gain == 2

    def test_what_is_asked_of_the_backend(self, bench, tmp_path):
        run(tmp_path, Limits(1), remote="devices", emulated=False)
        assert bench.backend.asked == (TARGET, "the kernels", "the rule", 2, "devices", False)


class TestOrder:
    def test_kernels_come_in_the_order_of_their_time(self, bench, tmp_path):
        """Five alternatives each: one is the rule's, one comes twice."""
        records = run(tmp_path, Limits(100))
        assert specs(records) == [str(op) for op in (SLOW, MIDDLE, FAST) for _ in range(4)]
        assert sizes(records) == [9, 7, 10, 6] * 3

    def test_one_is_left_after_enough_candidates_without_gain(self, bench, tmp_path):
        records = run(tmp_path, Limits(100, early_stopping=2))
        assert specs(records) == [str(op) for op in (SLOW, MIDDLE, FAST) for _ in range(2)]

    def test_alternatives_are_those_of_the_best_known(self, bench, tmp_path):
        """Larger is faster, up to 12: nothing is measured twice."""
        bench.ns = lambda text, size: 1000 - 100 * (min(size, 12) - 8)
        records = run(tmp_path, Limits(100, early_stopping=3))
        mine = [record for record in records if record.spec == str(SLOW)]
        assert winners(mine) == {str(SLOW): {"size": 12}}
        assert len(set(sizes(mine))) == len(mine)
        assert 8 not in sizes(mine)

    def test_a_machine_that_measures_several_at_once(self, bench, tmp_path):
        """At most one of each kernel, or all of one; never more than are left."""
        bench.at_once, bench.per_kernel = 2, 1
        run(tmp_path / "a", Limits(3))
        assert [[c.text for c in batch] for batch in bench.batches] == [
            [str(SLOW), str(MIDDLE)], [str(SLOW)]
        ]  # fmt: skip
        bench.batches.clear()
        bench.at_once = bench.per_kernel = 3
        run(tmp_path / "b", Limits(5))
        assert [[c.text for c in batch] for batch in bench.batches] == [
            [str(SLOW)] * 3, [str(SLOW), str(MIDDLE)]
        ]  # fmt: skip
        assert sizes(load_records([tmp_path / "b"])) == [9, 7, 10, 6, 9]


class TestLimits:
    def test_trials(self, bench, tmp_path):
        assert len(run(tmp_path, Limits(5))) == 5

    def test_none_is_begun_after_the_time(self, bench, tmp_path, monkeypatch):
        clock = count()
        monkeypatch.setattr(tuning, "time", SimpleNamespace(monotonic=lambda: next(clock)))
        records = run(tmp_path, Limits(100, seconds=10))
        assert 1 <= len(records) <= 10
        assert len(bench.batches) <= 10
        assert run(tmp_path / "none", Limits(100, seconds=0)) == []
        assert not (tmp_path / "none").exists()

    def test_a_bench_that_fails_for_good_loses_nothing(self, bench, tmp_path):
        def ns(_text, size):
            if size == 10:
                raise WorkError("the GPU failed for good")
            return 1000

        bench.ns = ns
        with pytest.raises(WorkError, match="failed for good"):
            run(tmp_path, Limits(100))
        assert sizes(load_records([tmp_path])) == [9, 7]


class TestGoingOn:
    def test_the_next_run_goes_on(self, bench, tmp_path):
        first = run(tmp_path, Limits(3))
        again = run(tmp_path, Limits(3))
        assert again[:3] == first
        assert len(again) == 6
        assert len({(r.spec, str(r.schedule)) for r in again}) == 6
        whole = run(tmp_path / "whole", Limits(6))
        assert [(r.spec, r.schedule) for r in again] == [(r.spec, r.schedule) for r in whole]

    def test_the_count_of_candidates_without_gain_goes_on_from_the_records(self, bench, tmp_path):
        run(tmp_path, Limits(2))
        (new,) = run(tmp_path, Limits(1, early_stopping=2))[2:]
        assert new.spec == str(MIDDLE)

    def test_records_of_another_key_are_others(self, bench, tmp_path):
        (record,) = run(tmp_path, Limits(1))
        (path,) = tmp_path.iterdir()
        path.unlink()
        others = [
            replace(record, threads=1),
            replace(record, kernels_version=VERSION - 1),
            replace(record, target=resolve_target("x86-64-v4").key),
        ]
        for other in others:
            append(other, tmp_path / "others.jsonl")
        assert [r.schedule for r in run(tmp_path, Limits(1))] == [record.schedule]

    def test_an_interrupted_run_loses_nothing(self, bench, tmp_path):
        def stop(trial):
            if trial.number == 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, Limits(100), on_trial=stop)
        assert sizes(load_records([tmp_path])) == [9, 7]

    def test_a_killed_run_loses_no_finished_trial(self, bench, tmp_path):
        command = [sys.executable, "-c", KILLED, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
            told = [program.stdout.readline().strip() for _ in range(3)]
            os.kill(program.pid, signal.SIGKILL)
        kept = load_records([tmp_path])
        assert told == list("123")
        assert 3 <= len(kept) < 12
        more = run(tmp_path, Limits(1))
        assert more[: len(kept)] == kept
        assert len(more) == len(kept) + 1


class TestNests:
    """Loop nests of TVM's: MetaSchedule is played."""

    @pytest.fixture
    def searched(self, bench, monkeypatch):
        """The slowest is a nest; what the searches were asked for, and what they find."""
        bench.times_ns[NEST], bench.nests = 1000, {NEST: "loops"}
        asked, found = [], []

        def search(function, target, folder, *, on_tried, **options):
            asked.append((function, target, folder, options))
            on_tried(1)
            return found.pop(0) if found else Found(None, 0)

        monkeypatch.setattr(tuning, "search", search)
        return SimpleNamespace(asked=asked, found=found)

    def test_what_is_found_is_measured_like_any_other(self, bench, searched, tmp_path):
        searched.found.append(Found(["a trace"], 4))
        told = []
        records = run(tmp_path, Limits(6, early_stopping=3), on_trial=told.append)
        assert specs(records) == [NEST, str(SLOW), str(SLOW)]  # the search was four trials
        assert records[0].schedule == {TRACE: ["a trace"]}
        assert [trial.number for trial in told] == [1, 4, 5, 6]
        ((function, target, folder, options),) = searched.asked
        assert (function, target, folder) == ("loops", TARGET, tmp_path)
        assert options == {"threads": 2, "limit": SEARCH_TRIALS, "budget": 6, "early_stopping": 3}
        assert bench.batches[0][0].schedule == {TRACE: ["a trace"]}

    def test_each_is_searched_once_in_a_run(self, bench, searched, tmp_path):
        run(tmp_path, Limits(100))
        assert len(searched.asked) == 1
        assert NEST not in specs(load_records([tmp_path]))

    def test_what_is_on_record_is_not_measured_again(self, bench, searched, tmp_path):
        searched.found += [Found(["a trace"], 4), Found(["a trace"], 0), Found(["b"], 2)]
        for wanted in (1, 1, 2):
            run(tmp_path, Limits(4))
            assert specs(load_records([tmp_path])).count(NEST) == wanted

    def test_faster_kernels_of_ours_come_after_it(self, bench, searched, tmp_path):
        bench.times_ns[NEST] = 250
        searched.found.append(Found(["a trace"], 4))
        records = run(tmp_path, Limits(100, early_stopping=1))
        assert specs(records) == [str(SLOW), NEST, str(MIDDLE), str(FAST)]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (resolve_target("x86-64-v2"), "there are no kernels for x86-64-v2; it needs AVX2"),
        (resolve_target("adreno"), "this version runs OpenCL on no device"),
    ],
)
def test_targets_that_are_not_tuned(tmp_path, target, message):
    with pytest.raises(UserError, match=message):
        run(tmp_path, Limits(1), target=target)
    assert not list(tmp_path.iterdir())


def test_a_record_can_be_read_without_this_program(bench, tmp_path):
    run(tmp_path, Limits(1))
    (path,) = tmp_path.iterdir()
    (line,) = path.read_text().splitlines()
    assert set(json.loads(line)) == set(Record.__dataclass_fields__)
    assert math.isclose(json.loads(line)["rule_ns"][0], 1000)
