"""Candidates of a GPU, several in one network: which of them is to blame for what, on a GPU that is
made up; and on the stand-in for a driver, whose clock counts threads, so that a schedule with fewer
of them is faster there. What is faster on a GPU, no test here says."""

import math
from dataclasses import dataclass, replace
from types import SimpleNamespace

import pytest

from deploy.artifact import KernelInfo
from deploy.backends import backend_of
from deploy.build import build_artifact
from deploy.gpu.kernels import GPU_KERNELS_VERSION, GpuKernels, depthwise
from deploy.gpu.kernels.depthwise import DepthwiseSchedule
from deploy.gpu.pipeline import compile_source
from deploy.gpu.plan import Plan
from deploy.gpu.program import GpuProgram
from deploy.graph.job import Job
from deploy.targets import resolve_target
from deploy.trials import whole
from deploy.trials.bench import ROUNDS, Candidate
from deploy.trials.whole import UNCOUNTED, WholeNetworksBench
from deploy.tuning.records import load_records, matching, winners
from deploy.tuning.tune import Limits, tune
from deploy.verify import Comparison
from lut.errors import UserError, WorkError
from lut.ops import Depthwise, Pointwise, Resize, parse_operation
from tests.deploy.gpu.fixtures import any_network

TEXTS = [str(op) for op in (Pointwise(8, 8, 4, 4), Depthwise(8, 4, 4), Resize(8, 4, 4, 2, 2))]


@dataclass(frozen=True)
class Program(GpuProgram):
    """A network that is made up: its kernels' schedules, by text."""

    measured: dict = None


@dataclass
class Gpu:
    """A GPU that is made up. A kernel takes 7 ms by the rule, else the number of its schedule;
    those of `broken`, by what a network with it does, are wrong, do not run, or end the GPU."""

    broken: dict
    alive: bool = True
    name = "A GPU"

    def __post_init__(self):
        self.networks, self.loaded, self.timed = [], [], []

    def build(self, kernels):
        """As `WholeNetworksBench` has networks built."""
        numbers = {text: fields["number"] for text, fields in kernels.measured.items()}
        self.networks.append(numbers)
        if any(self.broken.get(number) == "not built" for number in numbers.values()):
            raise ValueError("tile 0\nis not one")
        kernels = [KernelInfo(f"k{n}", "k", text, 0, 0) for n, text in enumerate(TEXTS)]
        code = Program(Plan(0, 0, None, {}), b"", measured=numbers)
        return SimpleNamespace(code=code, metadata=None, golden_input=None, kernels=kernels)


class Loaded:
    """On it, instead of `GpuNetwork`."""

    def __init__(self, program, _metadata, gpu):
        self.gpu, self.numbers, self.closed, self.warm = gpu, program.measured, False, False
        gpu.loaded.append(self)
        if "not loaded" in self._troubles():
            raise WorkError("cuLaunchKernel failed: too large")

    def _troubles(self):
        return {self.gpu.broken.get(number) for number in self.numbers.values()}

    def check(self):
        """What the golden image says."""
        if "fatal" in self._troubles():
            self.gpu.alive = False
            raise WorkError("cuStreamSynchronize failed: illegal address")
        error = 1.0 if "wrong" in self._troubles() else 0.0
        return Comparison("tvm", "golden", error, 1e-4, 0.0, 0.0)

    def warm_up(self, _image):
        self.warm = True

    def time_kernels(self, _image, frames):
        """The first frames are not counted; then there is an outlier."""
        assert self.warm
        self.gpu.timed.append(bool(self.numbers))
        slow = [1000.0] * UNCOUNTED
        return [
            (f"k{n}_kernel", [*slow, 50.0, *[self.numbers.get(text, 7.0)] * (frames - 3)])
            for n, text in enumerate(TEXTS)
        ]

    def close(self):
        self.closed = True


@dataclass(frozen=True)
class Schedule:
    number: int


@dataclass(frozen=True)
class Kernels:
    measured: dict


def on_made_up(monkeypatch, broken=()):
    gpu = Gpu(dict(broken))

    def frame(self, _image):
        if not self.loaded.gpu.alive:
            raise WorkError("the GPU answers nothing any more")

    monkeypatch.setattr(whole, "Driver", lambda: gpu)
    monkeypatch.setattr(whole, "GpuNetwork", Loaded)
    monkeypatch.setattr(whole, "replay_golden", lambda network: network.loaded.check())
    monkeypatch.setattr(whole._Loaded, "__call__", frame)
    kernels = Kernels({})
    bench = WholeNetworksBench(kernels, gpu.build(kernels), gpu.build)
    gpu.networks.clear(), gpu.timed.clear()
    return gpu, bench


def measure(bench, *numbers, end=math.inf):
    """Candidates of the kernels in turn, by their numbers; what is kept of each."""
    found = {}
    batch = [Candidate(text, Schedule(n)) for text, n in zip(TEXTS, numbers, strict=False)]
    try:
        bench.measure(
            batch, lambda candidate, m: found.setdefault(candidate.schedule.number, m), end
        )
    finally:
        bench.kept = found
    return found


class TestBlame:
    def test_one_network_carries_a_candidate_of_every_kernel(self, monkeypatch):
        gpu, bench = on_made_up(monkeypatch)
        assert bench.times_ns == dict.fromkeys(TEXTS, 7_000_000)
        assert bench.operations == {text: parse_operation(text) for text in TEXTS}
        found = measure(bench, 3, 4, 5)
        assert gpu.networks == [dict(zip(TEXTS, (3, 4, 5), strict=True))]
        for number in (3, 4, 5):
            assert found[number].machine == "A GPU"
            assert found[number].rule_ns == (7_000_000,) * ROUNDS
            assert found[number].candidate_ns == (number * 1_000_000,) * ROUNDS
        other = [False, True], [True, False]
        assert gpu.timed == [side for turn in range(ROUNDS) for side in other[turn % 2]]
        assert [loaded.closed for loaded in gpu.loaded] == [False, True]

    @pytest.mark.parametrize(
        ("trouble", "said"),
        [
            ("wrong", "logit error 1 (allowed 0.0001)"),
            ("not built", "is not one"),
            ("not loaded", "cuLaunchKernel failed: too large"),
        ],
    )
    @pytest.mark.parametrize("guilty", [3, 4, 5])
    def test_the_one_that_is_to_blame_is_found_by_halves(self, monkeypatch, trouble, said, guilty):
        gpu, bench = on_made_up(monkeypatch, {guilty: trouble})
        found = measure(bench, 3, 4, 5)
        assert set(found) == {3, 4, 5}
        assert said in found[guilty].refused
        assert "\n" not in found[guilty].refused
        assert found[guilty].candidate_ns == ()
        for number in {3, 4, 5} - {guilty}:
            assert found[number].refused == ""
            assert found[number].candidate_ns == (number * 1_000_000,) * ROUNDS
        assert all(loaded.closed for loaded in gpu.loaded[1:] if trouble != "not loaded")

    def test_time_is_up_before_its_halves(self, monkeypatch):
        """Nothing is recorded of who may not be to blame; the next run finds out."""
        gpu, bench = on_made_up(monkeypatch, {4: "wrong"})
        monkeypatch.setattr(whole, "time", SimpleNamespace(monotonic=lambda: 9.0))
        assert measure(bench, 3, 4, 5, end=5.0) == {}
        assert len(gpu.networks) == 1

    def test_the_gpu_fails_for_good(self, monkeypatch):
        """Who is to blame cannot be found out: none of them is tried again."""
        gpu, bench = on_made_up(monkeypatch, {4: "fatal"})
        with pytest.raises(WorkError, match="tune again: all that was measured is kept") as caught:
            measure(bench, 3, 4, 5)
        assert "\n" not in str(caught.value)
        assert {m.refused for m in bench.kept.values()} == {
            "with others: cuStreamSynchronize failed: illegal address"
        }
        assert len(bench.kept) == 3
        assert len(gpu.networks) == 1

    def test_a_kernel_that_seems_to_take_no_time(self, monkeypatch):
        _, bench = on_made_up(monkeypatch)
        assert measure(bench, 0)[0].candidate_ns == (1,) * ROUNDS

    def test_other_mistakes_are_not_swallowed(self, monkeypatch):
        _, bench = on_made_up(monkeypatch)
        with pytest.raises(KeyError):
            bench.measure([Candidate("no kernel", Schedule(1))], lambda *_: None, math.inf)


KERNELS = 4  # stem, depthwise, pointwise, label_end


@pytest.fixture(scope="module")
def target():
    return resolve_target("cuda", "sm_61")


@pytest.fixture(scope="module")
def stand_in(driver_library, tmp_path_factory):
    """The machine's driver for all of this file; what is compiled is compiled once."""
    with (
        any_network(driver_library, tmp_path_factory.mktemp("kernels")),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr("deploy.gpu.network.GpuNetwork.warm_up", lambda *_: None)
        yield


@pytest.fixture(scope="module")
def rule(stand_in, gpu_graph, target):
    return build_artifact(gpu_graph, target, threads=1, measured={})[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("home") / "tuning"


@pytest.fixture(scope="module")
def tuned(rule, gpu_graph, target, folder):
    """One network."""
    return tune(gpu_graph, target, folder, rule, Limits(KERNELS), threads=0)


def threads_of(graph, target, measured) -> dict[str, int]:
    """Of every kernel in a frame, by its operation."""
    compiled = compile_source(Job(graph, target, GpuKernels(measured)))
    specs = {kernel.name: kernel.spec for kernel in compiled.kernels}
    return {
        specs[launch.kernel.removesuffix("_kernel")]: math.prod(launch.grid)
        * math.prod(launch.block)
        for launch in compiled.lowered.plan.entries["main"].launches
    }


class TestOnTheStandIn:
    def test_every_trial_leaves_a_record(self, tuned, target, folder):
        assert len({record.spec for record in tuned}) == len(tuned) == KERNELS
        key = target.key, 0, GPU_KERNELS_VERSION
        assert load_records([folder]) == tuned == matching(tuned, *key)
        assert [path.name for path in folder.iterdir()] == ["sm_61.jsonl"]
        assert tuned[0].machine == "Stand-in"
        assert tuned[0].versions["cuda-nvrtc"] == "12.9"
        assert not matching(tuned, resolve_target("cuda", "sm_61", "fp16").key, *key[1:])
        assert not matching(tuned, resolve_target("cuda", "sm_75").key, *key[1:])

    def test_times_are_those_of_the_kernel(self, tuned, gpu_graph, target):
        """One tick for the event and one for each thread, in every round."""
        before = threads_of(gpu_graph, target, {})
        after = threads_of(gpu_graph, target, {r.spec: r.schedule for r in tuned})
        for record in tuned:
            assert record.refused == ""
            assert record.rule_ns == ((1 + before[record.spec]) * 10**6,) * ROUNDS
            assert record.candidate_ns == ((1 + after[record.spec]) * 10**6,) * ROUNDS

    def test_compiling_for_one_architecture_takes_the_winners(
        self, tuned, gpu_graph, target, folder, monkeypatch
    ):  # fmt: skip
        """The others are the rule's; for several, all are."""
        monkeypatch.setenv("HMSEG_HOME", str(folder.parent))
        kept = winners(tuned)
        assert any(text.startswith("pointwise ") for text in kept)
        artifact, comparisons = build_artifact(gpu_graph, target, threads=1)
        assert all(comparison.passed for comparison in comparisons)
        assert {kernel.spec for kernel in artifact.kernels if kernel.tuned} == set(kept)
        fewer = compile_source(Job(gpu_graph, target, GpuKernels(kept))).lowered.plan
        assert artifact.code.plan == fewer != compile_source(Job(gpu_graph, target)).lowered.plan
        both = resolve_target("cuda", "sm_61,sm_90")
        assert not backend_of(both).tunes(both)

    def offer(self, monkeypatch, *schedules):
        monkeypatch.setattr(depthwise, "alternatives", lambda op, best: iter(schedules))

    def test_a_wrong_one_is_refused(self, rule, gpu_graph, target, tmp_path, monkeypatch):
        """Alone; the kernel beside it is measured."""
        emit = depthwise.emit

        def forgetful(op, schedule):
            """The last rows are not written."""
            if schedule.threads == 64:
                op = replace(op, height=op.height - 8)
            return emit(op, schedule)

        self.offer(monkeypatch, DepthwiseSchedule(1, 64))
        monkeypatch.setattr(depthwise, "emit", forgetful)
        records = tune(gpu_graph, target, tmp_path, rule, Limits(2), threads=0)
        refused = {parse_operation(r.spec).kind: r.refused for r in records}
        assert "logit error" in refused.pop("depthwise")
        assert list(refused.values()) == [""]

    def test_the_gpu_fails_for_good(self, rule, gpu_graph, target, tmp_path, monkeypatch):
        """The next run does not run into it again."""
        self.offer(monkeypatch, DepthwiseSchedule(1, 512))
        monkeypatch.setenv("STAND_IN_FATAL_BLOCK", "256")
        with pytest.raises(WorkError, match="tune again: all that was measured is kept"):
            tune(gpu_graph, target, tmp_path, rule, Limits(2), threads=0)
        (first, second) = load_records([tmp_path])
        assert "with others" in first.refused
        assert "with others" in second.refused
        *_, last = tune(gpu_graph, target, tmp_path, rule, Limits(1), threads=0)
        assert not last.refused

    def test_no_gpu(self, rule, gpu_graph, target, tmp_path, monkeypatch):
        monkeypatch.setattr("deploy.gpu.driver.LIBRARY", "libcuda-that-is-not-there.so")
        with pytest.raises(UserError, match="no NVIDIA driver on this machine"):
            tune(gpu_graph, target, tmp_path, rule, Limits(1), threads=0)
        assert not list(tmp_path.iterdir())
