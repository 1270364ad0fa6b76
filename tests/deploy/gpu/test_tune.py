"""Tuning on the stand-in for a driver, whose clock counts threads: a schedule with fewer of them is
faster there. What is faster on a GPU, no test here says."""

import json
import math
import os
from dataclasses import replace

import numpy as np
import pytest
from deploy.gpu.tune import tune_on_gpu
from typer.testing import CliRunner

from deploy.artifact import load_artifact
from deploy.build import build_artifact
from deploy.cli.hmseg_deploy import app
from deploy.gpu.kernels import GPU_KERNELS_VERSION, GpuKernels, depthwise
from deploy.gpu.kernels.depthwise import DepthwiseSchedule
from deploy.gpu.pipeline import compile_source
from deploy.targets import resolve_target
from deploy.tuning.records import load_records, matching, winners
from lut.errors import UserError, WorkError
from tests.deploy.gpu.conftest import any_network

KERNELS = 4  # stem, depthwise, pointwise, label_end
BLAMED = "DepthwiseSpec"


@pytest.fixture(scope="module")
def target():
    return resolve_target("cuda", "sm_61")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("home") / "tuning"


@pytest.fixture(scope="module")
def tuned(driver_library, gpu_graph, target, folder, tmp_path_factory):
    """Two networks, cut short within the second and taken up again."""

    def cut(trial):
        if trial.number == KERNELS + 1:
            raise KeyboardInterrupt

    with any_network(driver_library, tmp_path_factory.mktemp("kernels")):
        with pytest.raises(KeyboardInterrupt):
            tune_on_gpu(gpu_graph, target, folder, trials=100, on_trial=cut)
        before = load_records([folder])
        records = tune_on_gpu(gpu_graph, target, folder, trials=KERNELS)
        return before, records


def threads_of(graph, target, measured) -> dict[str, int]:
    """Of every kernel in a frame, by its spec."""
    compiled = compile_source(graph, target, kernels=GpuKernels(measured))
    specs = {kernel.name: kernel.spec for kernel in compiled.kernels}
    return {
        specs[launch.kernel.removesuffix("_kernel")]: math.prod(launch.grid)
        * math.prod(launch.block)
        for launch in compiled.lowered.plan.entries["main"].launches
    }


class TestRecords:
    def test_every_trial_leaves_one(self, tuned, target, folder):
        before, records = tuned
        assert len(before) == KERNELS + 1
        assert len({record.spec for record in before[:KERNELS]}) == KERNELS
        assert records[: len(before)] == before
        assert len(records) == 2 * KERNELS + 1
        assert len({(r.spec, str(r.schedule)) for r in records}) == len(records)
        assert load_records([folder]) == records == matching(records, target, 0)
        assert [path.name for path in folder.iterdir()] == ["sm_61.jsonl"]

    def test_times_are_those_of_the_kernel(self, tuned, gpu_graph, target):
        """One tick for the event and one for each thread, in every round."""
        first = tuned[1][:KERNELS]
        rule = threads_of(gpu_graph, target, {})
        other = threads_of(gpu_graph, target, {r.spec: r.schedule for r in first})
        for record in first:
            assert record.refused == ""
            assert set(record.rule_ns) == {(1 + rule[record.spec]) * 10**6}
            assert set(record.candidate_ns) == {(1 + other[record.spec]) * 10**6}
            assert len(record.rule_ns) == len(record.candidate_ns) == 5

    def test_what_they_say_of_themselves(self, tuned, target):
        record = tuned[1][0]
        assert record.machine == "Stand-in"
        assert record.versions["cuda-nvrtc"] == "12.9"
        assert record.versions["driver"] == "12.9"
        assert record.kernels_version == GPU_KERNELS_VERSION
        assert not matching([record], resolve_target("cuda", "sm_61", "fp16"), 0)
        assert not matching([record], resolve_target("cuda", "sm_75"), 0)
        assert not matching([replace(record, kernels_version=0)], target, 0)


class TestUse:
    @pytest.fixture(autouse=True)
    def home(self, tuned, folder, monkeypatch):
        monkeypatch.setenv("HMSEG_HOME", str(folder.parent))

    def test_compile_for_one_architecture(self, any_driver, tuned, gpu_graph, target, tmp_path):
        """The kernels that win are in the artifact, and the others are the rule's."""
        kept = winners(tuned[1])
        assert any(text.startswith("PointwiseSpec") for text in kept)
        path, model = tmp_path / "small.hmseg", tmp_path / "graph.onnx"
        model.write_bytes(gpu_graph.SerializeToString())
        options = ["compile", "-m", str(model), "-t", "cuda", "--arch", "sm_61", "-o", str(path)]
        done = CliRunner().invoke(app, options)
        assert done.exit_code == 0, done.output
        artifact = load_artifact(path)
        assert all(comparison["passed"] for comparison in artifact.parity["comparisons"])
        assert {kernel.spec for kernel in artifact.kernels if kernel.tuned} == set(kept)
        fewer = compile_source(gpu_graph, target, kernels=GpuKernels(kept)).lowered.plan
        assert artifact.gpu.plan == fewer != compile_source(gpu_graph, target).lowered.plan

    def test_bench(self, any_driver, tuned, gpu_graph, target, tmp_path):
        """Its own percentiles, of the GPU's frames."""
        model = tmp_path / "graph.onnx"
        model.write_bytes(gpu_graph.SerializeToString())
        options = ["bench", "-m", str(model), "-t", "cuda", "--rounds", "1", "--repeat", "2"]
        done = CliRunner().invoke(app, [*options, "--json", "--percentile", "25"])
        assert done.exit_code == 0, done.output
        found = json.loads(done.stdout)
        wanted = np.percentile(found["samples_ns"]["hmseg"], 25) / 1e6
        assert found["percentiles"]["hmseg"]["p25_ms"] == pytest.approx(wanted)
        assert os.environ["NVIDIA_TF32_OVERRIDE"] == "0"
        done = CliRunner().invoke(app, [*options, "--percentile", "25"], env={"COLUMNS": "150"})
        assert "p25" in done.stdout

    def test_several_architectures_keep_the_rule(self, gpu_graph):
        """No GPU here: the parity gate emulates."""
        both = resolve_target("cuda", "sm_61,sm_90")
        artifact, _ = build_artifact(gpu_graph, both, threads=1)
        assert artifact.gpu.plan == compile_source(gpu_graph, both).lowered.plan
        assert not any(kernel.tuned for kernel in artifact.kernels)


class TestRefused:
    """A candidate that cannot be used is on record, alone to blame, and nothing else is lost."""

    def tune(self, graph, target, folder, trials=1):
        """The kernel to blame is the slowest, therefore the first."""
        records = tune_on_gpu(graph, target, folder, trials=trials)
        refused = {r.spec.partition("(")[0]: r.refused for r in records if r.refused}
        assert len(records) == trials
        assert list(refused) == [BLAMED]
        assert not any(text.startswith(BLAMED) for text in winners(records))
        return refused[BLAMED]

    def offer(self, monkeypatch, *schedules):
        monkeypatch.setattr(depthwise, "alternatives", lambda spec, best: iter(schedules))

    def test_wrong(self, any_driver, gpu_graph, target, tmp_path, monkeypatch):
        emit = depthwise.emit

        def forgetful(spec, schedule):
            """The last rows are not written."""
            if schedule.threads == 64:
                spec = replace(spec, height=spec.height - 8)
            return emit(spec, schedule)

        self.offer(monkeypatch, DepthwiseSchedule(1, 64))
        monkeypatch.setattr(depthwise, "emit", forgetful)
        assert "logit error" in self.tune(gpu_graph, target, tmp_path, trials=2)

    def test_not_emitted(self, any_driver, gpu_graph, target, tmp_path, monkeypatch):
        self.offer(monkeypatch, DepthwiseSchedule(0, 64))
        assert "division" in self.tune(gpu_graph, target, tmp_path)

    def test_not_launched(self, any_driver, gpu_graph, target, tmp_path, monkeypatch):
        self.offer(monkeypatch, DepthwiseSchedule(1, 512))
        monkeypatch.setenv("STAND_IN_BLOCK", "256")
        assert "cuLaunchKernel failed" in self.tune(gpu_graph, target, tmp_path)

    def test_time_is_up_before_its_halves(
        self, any_driver, gpu_graph, target, tmp_path, monkeypatch
    ):
        """Nothing is recorded of who may not be to blame; the next run finds out."""
        self.offer(monkeypatch, DepthwiseSchedule(1, 512))
        monkeypatch.setenv("STAND_IN_BLOCK", "256")
        rule, _ = build_artifact(gpu_graph, target, threads=1, measured={})
        now = iter([0, 0])  # when the tuning begins, and its first network
        monkeypatch.setattr("deploy.gpu.tune.time.monotonic", lambda: next(now, 9))
        monkeypatch.setattr("deploy.gpu.network.GpuNetwork.warm_up", lambda *_: None)
        monkeypatch.setattr("deploy.gpu.tune.build_artifact", None)  # `rule` is taken
        assert (
            tune_on_gpu(gpu_graph, target, tmp_path, trials=2, seconds=5, rule=rule)
            == load_records([tmp_path])
            == []
        )

    def test_the_gpu_fails_for_good(self, any_driver, gpu_graph, target, tmp_path, monkeypatch):
        """Who is to blame cannot be found out; the next run does not run into it again."""
        self.offer(monkeypatch, DepthwiseSchedule(1, 512))
        monkeypatch.setenv("STAND_IN_FATAL_BLOCK", "256")
        with pytest.raises(WorkError, match="tune again: all that was measured is kept") as caught:
            tune_on_gpu(gpu_graph, target, tmp_path, trials=2)
        assert "\n" not in str(caught.value)
        assert all("with others" in record.refused for record in load_records([tmp_path]))
        assert len(load_records([tmp_path])) == 2
        *_, last = tune_on_gpu(gpu_graph, target, tmp_path, trials=1)
        assert not last.refused


class TestCommand:
    def test_fp16(self, any_driver, gpu_graph, tmp_path):
        """From the command to the records; the GPU's architecture is asked for."""
        model, records = tmp_path / "graph.onnx", tmp_path / "records"
        model.write_bytes(gpu_graph.SerializeToString())
        options = ["tune", "-m", str(model), "-t", "cuda", "--precision", "fp16"]
        options += ["--trials", "3", "--records", str(records)]
        done = CliRunner().invoke(app, options, env={"COLUMNS": "150"})
        assert done.exit_code == 0, done.output
        assert "3 records, " in done.output
        assert "rule / records, whole network: " in done.output
        assert [path.name for path in records.iterdir()] == ["sm_61-fp16.jsonl"]
        kept = winners(load_records([records]))
        assert all(text in done.output for text in kept)

    def test_time_is_up(self, any_driver, gpu_graph, target, tmp_path):
        assert tune_on_gpu(gpu_graph, target, tmp_path, trials=9, seconds=0) == []

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--output", "logits"], "from image to labels"),
            (["--input", "tensor"], "from image to labels"),
            (["--profile"], "--profile is for CPUs"),
            (["--fail-below", "1"], "--fail-below compares"),
        ],
    )
    def test_bench_refuses_before_it_compiles(self, any_driver, monkeypatch, options, message):
        monkeypatch.setattr("deploy.cli.bench.options.open_model", None)  # not called
        done = CliRunner().invoke(app, ["bench", "-t", "cuda", *options])
        assert isinstance(done.exception, UserError), done.output
        assert message in str(done.exception)
        monkeypatch.setattr("deploy.cli.options.read_place", lambda *_: (1, object()))
        done = CliRunner().invoke(app, ["bench", "-t", "cuda", "--rpc-key", "board"])
        assert "leave --rpc-key out" in str(done.exception)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["-t", "nvidia/geforce-rtx-3070"], "this machine's GPU is sm_61; measure it"),
            (["-t", "adreno"], "this version runs OpenCL on no device"),
            (["-t", "cuda", "--threads", "2"], "--threads is of a CPU; leave it out"),
        ],
    )
    def test_not_this_gpu(self, any_driver, options, message):
        done = CliRunner().invoke(app, ["tune", *options])
        assert isinstance(done.exception, UserError)
        assert message in str(done.exception)

    def test_not_over_rpc(self, any_driver, monkeypatch):
        monkeypatch.setattr("deploy.cli.options.read_place", lambda *_: (1, object()))
        done = CliRunner().invoke(app, ["tune", "-t", "cuda", "--rpc-key", "board"])
        assert isinstance(done.exception, UserError)
        assert "on its own machine: leave --rpc-key" in str(done.exception)

    def test_bench_compiles_for_the_gpu_present(self, any_driver, gpu_graph, tmp_path, monkeypatch):
        """One architecture, so that records are used."""
        asked, model = [], tmp_path / "graph.onnx"
        model.write_bytes(gpu_graph.SerializeToString())

        def build(graph, target, threads, remote):
            asked.append(target)
            raise UserError("seen")

        monkeypatch.setattr("deploy.cli.bench._build", build)
        monkeypatch.setenv("STAND_IN_CAPABILITY", "86")
        for options in ([], ["--precision", "fp16"], ["--arch", "sm_80"]):
            CliRunner().invoke(app, ["bench", "-m", str(model), "-t", "cuda", *options])
        assert [target.features for target in asked] == [("sm_86",), ("sm_86",), ("sm_80",)]
        assert [target.precision for target in asked] == ["fp32", "fp16", "fp32"]

    def test_no_gpu(self, monkeypatch):
        monkeypatch.setattr("deploy.gpu.driver.LIBRARY", "libcuda-that-is-not-there.so")
        done = CliRunner().invoke(app, ["tune", "-t", "cuda"])
        assert isinstance(done.exception, UserError)
        assert str(done.exception).startswith("no NVIDIA driver on this machine")
