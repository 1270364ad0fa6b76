"""One real search by MetaSchedule, small and interrupted: what it leaves on disk, what compiling
and timing make of it.

A pair of apache-tvm and apache-tvm-ffi that do not fit each other crashes here.
"""

import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deploy.backends import backend_of
from deploy.build import build_artifact
from deploy.cpu.kernels import MODULES
from deploy.cpu.passes.schedule_fallback import apply_trace, workload_key
from deploy.schedules import TRACE
from deploy.trials.bench import ROUNDS, Candidate
from deploy.trials.swapped import SwappedBench
from deploy.tuning.metaschedule import BATCH, search
from lut import ops
from lut.errors import UserError
from tests.conditions import KERNELS

TRIALS, BEFORE = 4, 2  # in all, and until it is interrupted


@dataclass
class Searched:
    function: Any
    folder: Path
    trace: Any
    records: Path
    kept: list[str]  # lines of the file when the search went on


def run(function, target, folder, **options):
    defaults = {"threads": 1, "limit": TRIALS, "budget": BATCH, "early_stopping": 100}
    return search(function, target, folder, **{**defaults, **options})


@pytest.fixture(scope="module")
def bench(small_graph, cpu):
    """A user's network, of which one convolution is left to TVM, as if there were no kernel."""
    KERNELS.require()
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(MODULES, ops.Conv)
        rule, _ = build_artifact(small_graph, cpu, threads=1, measured={})
        yield SwappedBench(small_graph, cpu, backend_of(cpu).kernels(cpu, 1, {}), rule)


@pytest.fixture(scope="module")
def nest(bench):
    """The convolution."""
    (text,) = (t for t, function in bench.nests.items() if "conv2d" in function.script())
    return text


@pytest.fixture(scope="module")
def searched(bench, nest, cpu, tmp_path_factory):
    """Killed in the middle of writing the second record: one is kept, the others are tried anew."""
    folder, told = tmp_path_factory.mktemp("search"), []
    function = bench.nests[nest]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("deploy.tuning.metaschedule._POPULATION", 8)  # the choice takes the most time
        first = run(function, cpu, folder, limit=BEFORE, on_tried=told.append)
        (path,) = folder.glob("metaschedule/*/database_tuning_record.json")
        whole, torn = path.read_text().splitlines(keepends=True)
        path.write_text(whole + torn[: len(torn) // 2])
        found = run(function, cpu, folder, on_tried=told.append)
    assert (first.tried, found.tried) == (BEFORE, TRIALS - BEFORE + 1)
    assert told == [BEFORE, TRIALS - BEFORE + 1]
    assert workload_key(function) == nest  # the input is as it was
    return Searched(function, folder, found.trace, path, [whole])


def test_an_interrupted_search_goes_on(searched):
    lines = searched.records.read_text().splitlines(keepends=True)
    assert lines[: len(searched.kept)] == searched.kept
    assert len(lines) == TRIALS


def test_it_is_measured_inside_the_network(searched, bench, nest):
    """Where it must compute what the rule's schedule does."""
    measured = []
    candidate = Candidate(nest, {TRACE: searched.trace})
    bench.measure([candidate], lambda _, found: measured.append(found), math.inf)
    (found,) = measured
    assert found.refused == ""
    assert len(found.rule_ns) == len(found.candidate_ns) == ROUNDS


def test_an_artifact_with_it_passes_the_parity_gate(searched, nest, small_graph, cpu):
    """Against onnxruntime; the trace is as a record's file holds it."""
    measured = {nest: {TRACE: json.loads(json.dumps(searched.trace))}}
    scheduled = apply_trace(searched.function, measured[nest])
    assert scheduled.script() != searched.function.script()
    artifact, comparisons = build_artifact(small_graph, cpu, threads=1, measured=measured)
    assert [kernel.spec for kernel in artifact.kernels if kernel.tuned] == [nest]
    assert comparisons
    assert all(comparison.passed for comparison in comparisons)


def test_a_finished_search_is_not_repeated(searched, cpu):
    again = run(searched.function, cpu, searched.folder)
    assert (again.tried, again.trace) == (0, searched.trace)


def test_another_number_of_threads_is_another_search(searched, cpu):
    assert run(searched.function, cpu, searched.folder, threads=2, budget=0).trace is None


def test_a_damaged_search_is_named(searched, cpu, tmp_path):
    copy = tmp_path / "metaschedule" / searched.records.parent.name
    shutil.copytree(searched.records.parent, copy)
    (copy / searched.records.name).write_text("not JSON\n")
    with pytest.raises(UserError, match=f"{copy}.*delete it") as caught:
        run(searched.function, cpu, tmp_path)
    assert "\n" not in str(caught.value)
