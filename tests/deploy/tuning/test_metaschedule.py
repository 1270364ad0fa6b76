"""One real search by MetaSchedule, small; what it leaves on disk, and what compiling makes of it.

A pair of apache-tvm and apache-tvm-ffi that do not fit each other crashes here.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm

from deploy.build import build_artifact
from deploy.cpu.machine_code import compile_kernels
from deploy.cpu.passes.schedule_fallback import TRACE, apply_trace, left_to_tvm, workload_key
from deploy.cpu.pipeline import network_passes
from deploy.graph.export import import_onnx
from deploy.graph.importer import import_graph
from deploy.graph.passes import passes_before, run_passes
from deploy.tuning.metaschedule import BATCH, search
from deploy.tuning.records import load_records
from deploy.tuning.tune import Trial, tune
from lut.errors import UserError
from tests.deploy import user_networks
from tests.deploy.graph.nets import Net

TRIALS = 4


@dataclass
class Searched:
    function: Any
    folder: Path
    trace: Any
    records: Path


def convolution() -> Any:
    net = Net(8, 16, 32)
    module = import_graph(net.model(net.conv("x", 8, 3, act="relu6")))
    module = run_passes(module, passes_before("ScheduleFallback", network_passes()))
    (function,) = left_to_tvm(module).values()
    return function


def run(function, target, folder, **options):
    defaults = {"threads": 2, "limit": TRIALS, "budget": BATCH, "early_stopping": 100}
    return search(function, target, folder, **{**defaults, **options})


@pytest.fixture(scope="module")
def searched(cpu, tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    function = convolution()
    key, told = workload_key(function), []
    found = run(function, cpu, folder, on_tried=told.append)
    assert found.tried == TRIALS
    assert told == [TRIALS]
    assert workload_key(function) == key  # the input is as it was
    (path,) = folder.glob("metaschedule/*/database_tuning_record.json")
    return Searched(function, folder, found.trace, path)


def test_the_schedule_found_computes_the_same(searched, cpu):
    trace = json.loads(json.dumps(searched.trace))  # as a record's file holds it
    scheduled = apply_trace(searched.function, {TRACE: trace})
    assert scheduled.script() != searched.function.script()
    kernels = compile_kernels(
        {"plain": searched.function, "tuned": scheduled}, tvm.target.Target(cpu.config)
    )
    rng = np.random.default_rng(0)
    shapes = [tuple(int(size) for size in param.shape) for param in searched.function.params]
    *inputs, out = [rng.normal(0, 1, shape).astype(np.float32) for shape in shapes]
    results = {}
    for name in ("plain", "tuned"):
        tensor = tvm.runtime.tensor(np.full_like(out, 77))
        kernels[name](*map(tvm.runtime.tensor, inputs), tensor)
        results[name] = tensor.numpy()
    np.testing.assert_allclose(results["tuned"], results["plain"], atol=1e-5)


def test_a_finished_search_is_not_repeated(searched, cpu):
    again = run(searched.function, cpu, searched.folder)
    assert (again.tried, again.trace) == (0, searched.trace)


def test_another_number_of_threads_is_another_search(searched, cpu):
    assert run(searched.function, cpu, searched.folder, threads=1, budget=0).trace is None


def test_an_interrupted_search_goes_on(searched, cpu, tmp_path):
    """Killed in the middle of writing the third record: two are kept, the others tried anew."""
    work = searched.records.parent
    copy = tmp_path / "metaschedule" / work.name
    copy.mkdir(parents=True)
    for path in work.glob("*.json"):
        (copy / path.name).write_bytes(path.read_bytes())
    first, second, third, *_ = searched.records.read_text().splitlines(keepends=True)
    (copy / searched.records.name).write_text(first + second + third[: len(third) // 2])
    found = run(searched.function, cpu, tmp_path)
    assert found.tried == TRIALS - 2
    lines = (copy / searched.records.name).read_text().splitlines(keepends=True)
    assert lines[:2] == [first, second]
    assert len(lines) == TRIALS


def test_a_damaged_search_is_named(searched, cpu, tmp_path):
    copy = tmp_path / "metaschedule" / searched.records.parent.name
    copy.mkdir(parents=True)
    (copy / searched.records.name).write_text("not JSON\n")
    with pytest.raises(UserError, match=f"{copy}.*delete it") as caught:
        run(searched.function, cpu, tmp_path)
    assert "\n" not in str(caught.value)


def test_tune_of_a_users_network(cpu, tmp_path, monkeypatch):
    """Most of this network's time is a dense convolution: it is searched first, what is found is
    measured in the network, and an artifact with the schedule passes the parity gate."""
    monkeypatch.setattr("deploy.tuning.metaschedule.BATCH", 2)
    model, folder = tmp_path / "user.onnx", tmp_path / "records"
    user_networks.save_as_user(user_networks.MobileNetV2Fcn(), model)
    graph = import_onnx(model, mean=None, std=None)
    told: list[Trial] = []
    records = tune(graph, cpu, folder, threads=2, trials=2, early_stopping=2, on_trial=told.append)
    assert len(searched_lines(folder)) == 2
    assert max(trial.number for trial in told) == 2
    (record,) = records
    assert TRACE in record.schedule
    assert record.refused == ""
    assert len(record.rule_ns) == len(record.candidate_ns) > 1
    assert load_records([folder]) == records
    artifact, comparisons = build_artifact(
        graph, cpu, threads=2, measured={record.spec: record.schedule}
    )
    assert [kernel.spec for kernel in artifact.kernels if kernel.tuned] == [record.spec]
    assert comparisons
    assert all(comparison.passed for comparison in comparisons)


def searched_lines(folder: Path) -> list[str]:
    """The whole lines of the one search in a folder."""
    texts = [p.read_text() for p in folder.glob("metaschedule/*/database_tuning_record.json")]
    return [line for text in texts for line in text.splitlines(keepends=True) if line[-1] == "\n"]
