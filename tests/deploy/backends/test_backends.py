"""The seam to kinds of machines: a third one goes every way that a network goes, and no file that
works on networks knows of it. What the two real ones compute is in test_cpu.py and test_cuda.py."""

import inspect
import json
from dataclasses import replace

import pytest

from deploy import backends
from deploy.artifact_file import load_artifact, save_artifact
from deploy.backends import backend_of
from deploy.backends.base import Backend
from deploy.bench import OURS, bench
from deploy.build import build_artifact
from deploy.graph.source import Source
from deploy.measure.interleave import Protocol
from deploy.profile import profile
from deploy.roofline import draw_roofline
from deploy.tables.build import Plan, build_table
from deploy.targets import resolve_target
from deploy.tuning.compare import compare_artifacts
from deploy.tuning.records import load_records, tuned_schedules, winners
from deploy.tuning.tune import Limits, tune
from hmseg.genotype import Genotype
from hmseg.operators import Space
from lut.errors import UserError, WorkError
from lut.ops import expand
from tests.deploy.backends import fake
from tests.deploy.backends.fake import MACHINE, RULE_NS, TARGET, FakeBackend
from tests.deploy.graphs import photo
from tests.deploy.tables.fakes import SHALLOW

ONCE = Protocol(warmup=0, repeat=2, rounds=3, pause_s=0)
BACKENDS = {**backends._BACKENDS, fake.KIND: FakeBackend()}


def members_of(protocol: type) -> dict[str, object]:
    members = dict.fromkeys(protocol.__annotations__) | vars(protocol)
    return {name: value for name, value in members.items() if not name.startswith("_")}


@pytest.mark.parametrize("kind", BACKENDS)
def test_every_backend_has_what_the_protocol_says(kind):
    """Under the same names, and taking the same; mypy compares the types."""
    backend = BACKENDS[kind]
    for name, wanted in members_of(Backend).items():
        found = getattr(backend, name)
        if callable(wanted):
            (_, *parameters) = inspect.signature(wanted).parameters.values()
            named = [(p.name, p.kind) for p in parameters]
            assert [(p.name, p.kind) for p in inspect.signature(found).parameters.values()] == named


def test_a_target_finds_its_backend(cpu):
    found = {text: type(backend_of(resolve_target(text))).__name__ for text in (
        "cpu", "arm", "android", "cuda", "adreno"
    )}  # fmt: skip
    assert found == {
        "cpu": "CpuBackend", "arm": "CpuBackend", "android": "CpuBackend", "cuda": "CudaBackend",
        "adreno": "OpenClBackend",
    }  # fmt: skip
    with pytest.raises(KeyError):
        backend_of(TARGET)


@pytest.fixture
def backend(monkeypatch) -> FakeBackend:
    made = FakeBackend()
    fake.register(monkeypatch, made)
    return made


@pytest.fixture
def built(backend, small_graph):
    return build_artifact(small_graph, TARGET, threads=7)[0]


class TestBuilding:
    def test_it_is_checked_where_it_runs(self, backend, small_graph, tmp_path):
        steps: list[str] = []
        made, comparisons = build_artifact(small_graph, TARGET, threads=7, on_step=steps.append)
        assert steps == ["writing it down", "parity gate on paper"]
        assert [c.passed for c in comparisons] == [True] * 5
        assert made.parity["checked"] is True
        assert MACHINE.items() <= made.parity.items()
        assert made.versions["pencil"] == "2B"
        assert len(made.calls) >= 2
        save_artifact(made, tmp_path / "a.hmseg")
        read = load_artifact(tmp_path / "a.hmseg")
        assert (read.code, read.target, read.kernels) == (made.code, TARGET, made.kernels)

    def test_what_differs_is_refused_and_located(self, backend, small_graph):
        backend.broken = ("conv2",)
        with pytest.raises(WorkError, match=r"does not match onnxruntime .* Conv 'conv2'"):
            build_artifact(small_graph, TARGET, threads=7)

    def test_where_nothing_runs_it_is_not_checked(self, backend, small_graph):
        backend.absent = True
        made, comparisons = build_artifact(small_graph, TARGET, threads=7)
        assert comparisons == []
        noise = made.parity["noise"]
        assert noise["rms"] > 0
        reason = "there is no paper left"
        assert made.parity == {"checked": False, "reason": reason, "noise": noise}

    def test_a_place_that_it_does_not_have(self, backend, small_graph):
        with pytest.raises(UserError, match="paper is not sent by RPC"):
            build_artifact(small_graph, TARGET, threads=7, remote=object())


class TestMeasuring:
    def test_bench(self, backend, built, small_graph):
        source = Source(small_graph, None, "those in the file")
        result = bench(built, source, photo(), ONCE, threads=7, profiled=True)
        whole = RULE_NS * len(built.calls)
        assert result.samples[OURS] == [[whole] * 2] * 3
        assert list(result.ratios) == ["a calculator"]
        assert result.notes == {"a calculator": "of 1974"}
        assert result.parts_ms == {"thinking": 2, "writing": 1}
        said = json.loads(json.dumps(result.to_json()))
        assert (said["machine"], said["threads"]) == (MACHINE, 0)
        assert said["includes"] == "the sharpening of the pencil"
        assert "memory" not in said
        assert [kernel["calls"] for kernel in said["profile"]["kernels"]]

    def test_profile(self, backend, built, tmp_path):
        devices = backend_of(built.target).devices(7, None)
        result = devices.use(built, lambda session: profile(session, 7, frames=3))
        assert result.frame_ms == RULE_NS * len(built.calls) / 1e6
        assert sum(kernel.calls for kernel in result.kernels) == len(built.calls)
        assert (result.ceilings, result.fma_share) == (None, None)
        draw_roofline(result, "on paper", tmp_path / "r.png")
        assert (tmp_path / "r.png").stat().st_size > 0


class TestTuning:
    def test_records_are_its_own_and_the_next_network_takes_them(
        self, backend, built, small_graph, monkeypatch, tmp_path
    ):
        monkeypatch.setenv("HMSEG_HOME", str(tmp_path))
        folder = tmp_path / "tuning"
        records = tune(small_graph, TARGET, folder, built, Limits(6), threads=7)
        assert [path.name for path in folder.iterdir()] == ["paper.jsonl"]
        assert load_records([folder]) == records
        assert {(r.target, r.threads, r.kernels_version) for r in records} == {(TARGET.key, 0, 41)}
        assert {r.versions["pencil"] for r in records} == {"2B"}
        won = winners(records)
        assert won == tuned_schedules(TARGET.key, 0, 41) != {}
        assert all(fields["size"] > 8 for fields in won.values())
        tuned, _ = build_artifact(small_graph, TARGET, threads=7)
        assert {info.spec for info in tuned.kernels if info.tuned} == set(won)
        ratio = compare_artifacts(built, tuned, ONCE, backend.devices(7, None))
        assert ratio.median == sum(built.code.times_ns) / sum(tuned.code.times_ns) > 1


class Few(Plan):
    """One network, in both roles."""

    def networks(self) -> list[tuple[Genotype, str]]:
        return [(SHALLOW, "entries"), *[(SHALLOW, "calibration")] * 3]


def test_a_table(backend, cpu, monkeypatch, tmp_path):
    """Each entry takes what its calls take, 1 us each."""
    monkeypatch.setattr("deploy.tables.build.MRMS_GENOTYPE", SHALLOW)
    monkeypatch.setenv("HMSEG_HOME", str(tmp_path))
    space = Space((64, 64), 0.5)
    plan = Few(space, TARGET, 0, protocol=backend.protocol, revisits=0)
    devices = backend.devices(7, None)
    table = build_table(plan, devices, tmp_path / "t.jsonl")
    assert (table.identity.target, table.identity.threads) == (TARGET.key, 0)
    ((provenance, visits),) = table.runs
    assert (provenance.cpu, provenance.architecture) == ("A4", "abacus")
    assert len(visits) == len(plan.networks())
    assert set(table.entries) == set(space.keys(SHALLOW))
    for entry, found in table.entries.items():
        assert found.median_us == len(expand(entry, backend.has)), str(entry)
    with pytest.raises(UserError, match="the target cpu is x86_64, and what would measure it is"):
        build_table(replace(plan, target=cpu), devices, tmp_path / "other.jsonl")


class TestCommands:
    """Said by the commands, which have no word for it."""

    def test_compile(self, backend, cli, user_onnx):
        done = cli("compile", "-m", user_onnx, "-t", "paper", "-o", "n.hmseg").succeeded()
        assert done.out == "n.hmseg\n"
        assert "compiling for paper" in done.err
        backend.absent = True
        done = cli("compile", "-m", user_onnx, "-t", "paper", "-o", "n.hmseg").succeeded()
        assert "parity not checked: there is no paper left" in done.err
        assert "check it at a desk: n.hmseg" in done.err
        assert "cannot verify here: there is no" in cli("verify", "-m", user_onnx, "-t", "x").error
        assert "cannot time it here: there is no" in cli("bench", "-m", user_onnx, "-t", "x").error

    def test_verify_bench_and_profile(self, backend, cli, user_onnx):
        assert (
            cli("verify", "-m", user_onnx, "-t", "paper").succeeded().out.count("yes") == 9
        )  # the binary on five images, the file and its ends on two
        done = cli("bench", "-m", user_onnx, "-t", "paper", "--profile", "--rounds", 2).succeeded()
        assert "a calculator / hmseg: " in done.out
        assert "thinking 2.000 ms, writing 1.000 ms" in done.out
        assert "a calculator: of 1974" in done.err
        assert "the time includes the sharpening of the pencil" in done.err
        cli("compile", "-m", user_onnx, "-t", "paper", "-o", "n.hmseg").succeeded()
        done = cli("profile", "n.hmseg", "--json").succeeded()
        assert json.loads(done.out)["machine"] == MACHINE

    def test_tune(self, backend, cli, user_onnx):
        done = cli("tune", "-m", user_onnx, "-t", "paper", "--records", "here", "--json")
        said = json.loads(done.succeeded().out)
        assert said["measured"] <= backend.trials
        assert {fields["size"] for fields in said["kept"].values()} <= {16, 32, 64}
        assert said["whole_network"]["median"] > 1
