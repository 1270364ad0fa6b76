"""Real trials on a network of a second's compile time."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from deploy.build import build_artifact
from deploy.cpu.pipeline import isa_of
from deploy.tuning import tune as tuning
from deploy.tuning.records import append, load_records
from deploy.tuning.tune import tune
from lut.errors import UserError
from tests.deploy.graphs import photo

TRIALS = 4


@pytest.fixture(scope="module", autouse=True)
def without_search():
    """test_metaschedule.py tunes what is left to TVM; which kernel comes first varies with time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning, "left_to_tvm", lambda module: {})
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tuning")


@pytest.fixture(scope="module")
def first(small_graph, cpu, folder):
    if isa_of(cpu) is None:
        pytest.skip("this CPU has no AVX2: there are no kernels to tune")
    return tune(small_graph, cpu, folder, threads=2, trials=TRIALS)


def test_every_trial_leaves_a_record(first, folder):
    assert len(first) == TRIALS
    assert load_records([folder]) == first
    assert len({(r.spec, str(r.schedule)) for r in first}) == TRIALS
    used = [r for r in first if not r.refused]
    assert used
    assert all(ns > 0 for r in used for ns in (*r.rule_ns, *r.candidate_ns))


def test_the_next_run_goes_on(first, small_graph, cpu, folder):
    again = tune(small_graph, cpu, folder, threads=2, trials=2)
    assert again[: len(first)] == first
    # MetaSchedule's trials leave one record, whichever of the kernels is the slowest today.
    assert len({(r.spec, str(r.schedule)) for r in again}) == len(again) > len(first)


def test_other_schedules_give_the_same_network(first, small_graph, cpu):
    measured = {r.spec: r.schedule for r in first if not r.refused}
    artifact, comparisons = build_artifact(small_graph, cpu, threads=2, measured=measured)
    assert all(c.passed for c in comparisons)
    assert artifact.golden.image.shape == photo().shape


def test_each_side_is_as_often_first(small_graph, cpu, tmp_path, monkeypatch):
    if isa_of(cpu) is None:
        pytest.skip("this CPU has no AVX2: there are no kernels to tune")
    order, frame = [], tuning._Bench._frame

    def watched(self, name, replacement):
        order.append(replacement is not None)
        return frame(self, name, replacement)

    monkeypatch.setattr(tuning._Bench, "_frame", watched)
    record = next(r for r in tune(small_graph, cpu, tmp_path, threads=2, trials=3) if not r.refused)
    assert len(record.rule_ns) == tuning.ROUNDS
    measured = order[-2 * tuning.FRAMES :]
    assert measured == [False, True, True, False] * (tuning.FRAMES // 2)


def test_a_kernel_without_gain_is_not_taken_up_again(first, small_graph, cpu, tmp_path):
    """One record without gain of every kernel but one: the count goes on from the records."""
    used = next(r for r in first if not r.refused)
    artifact, _ = build_artifact(small_graph, cpu, threads=2, measured={})
    for spec in {kernel.spec for kernel in artifact.kernels} - {"", used.spec}:
        append(replace(used, spec=spec, candidate_ns=used.rule_ns), tmp_path / "others.jsonl")
    before = load_records([tmp_path])
    (new,) = tune(small_graph, cpu, tmp_path, threads=2, trials=1, early_stopping=1)[len(before) :]
    assert new.spec == used.spec


def test_no_kernels_to_tune(small_graph, folder):
    from deploy.targets import resolve_target

    with pytest.raises(UserError, match="needs AVX2"):
        tune(small_graph, resolve_target("x86-64-v2"), folder, threads=2, trials=1)


def test_sigkill_loses_no_finished_trial(small_graph, cpu, tmp_path):
    if isa_of(cpu) is None:
        pytest.skip("this CPU has no AVX2: there are no kernels to tune")
    model = tmp_path / "m.onnx"
    model.write_bytes(small_graph.SerializeToString())
    code = (
        "import onnx, sys, pathlib\n"
        "from deploy.tuning.tune import tune\nfrom deploy.targets import resolve_target\n"
        "tune(onnx.load(sys.argv[1]), resolve_target('cpu'), pathlib.Path(sys.argv[2]),"
        " threads=2, trials=500, early_stopping=500)"
    )
    records = tmp_path / "records"
    process = subprocess.Popen([sys.executable, "-c", code, str(model), str(records)])
    deadline = time.monotonic() + 400
    try:
        while time.monotonic() < deadline and not list(records.glob("*.jsonl")):
            assert process.poll() is None
            time.sleep(0.05)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    kept = load_records([records])
    assert kept
    more = tune(small_graph, cpu, records, threads=2, trials=1)
    assert more[: len(kept)] == kept
    assert len(more) == len(kept) + 1
    assert np.all([r.date for r in more])
