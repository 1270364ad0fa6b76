"""Networks timed on the stand-in for a driver, whose clock counts threads and events: what a
session and a latency table must then say can be computed. What a GPU takes, no test here says.

The kernels do nothing (tests/deploy/gpu/test_kernels.py runs the real ones); the launches, the
graphs and the events are those of the networks.
"""

import math
import os
import subprocess
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from deploy.backends import backend_of
from deploy.backends.base import Job
from deploy.measure.gpu import GpuDevice
from deploy.measure.interleave import Protocol
from deploy.measure.rounds import VisitProtocol
from deploy.tables import build, check
from deploy.tables.build import Plan, build_table
from deploy.tables.check import OCCASIONS, check_networks, require_measurable
from deploy.tables.networks import OwnFactory, Recipe, unchecked_artifact
from deploy.targets import resolve_target
from lut.errors import UserError, WorkError
from lut.estimate import MIN_CALIBRATION
from lut.ops import Depthwise, InvertedResidual, Labels, Pointwise, Stem, parse_operation
from lut.table_file import load_table
from tests.deploy.tables.fakes import SHALLOW, SPACE
from tests.lut.tables import visit

PROTOCOL = VisitProtocol(rounds=2, frames=2, warmup=1)
TARGET = resolve_target("cuda", "sm_61")


@pytest.fixture(scope="module")
def idle_kernels(tmp_path_factory):
    """Kernels of every name that the networks have, which do nothing."""
    folder = tmp_path_factory.mktemp("idle")
    kinds = "stem", "depthwise", "pointwise", "global_mean", "resize", "labels_end"
    names = [f"{kind}{number or ''}_kernel" for kind in kinds for number in range(64)]
    code = folder / "idle.c"
    code.write_text(
        "\n".join(
            f"void emulate_{name}(void **p, const unsigned *s, int b) {{}}\n"
            f"unsigned arguments_{name}(void) {{ return 0; }}"
            for name in names
        )
    )
    command = [os.environ.get("CC", "gcc"), "-shared", "-fPIC", "-o", folder / "idle.so", code]
    subprocess.run(command, check=True)
    return folder / "idle.so"


@pytest.fixture(autouse=True)
def stand_in(driver_library, idle_kernels, monkeypatch):
    """It is the machine's driver; no frames are run to wake it up."""
    monkeypatch.setattr("deploy.gpu.driver.LIBRARY", str(driver_library))
    monkeypatch.setattr("deploy.gpu.network.GpuNetwork.warm_up", lambda *_: None)
    monkeypatch.setenv("STAND_IN_KERNELS", str(idle_kernels))


@pytest.fixture(scope="module")
def small(gpu_graph):
    """A network of four launches: the stem, a depthwise and a 1x1 convolution, the label end."""
    backend = backend_of(TARGET)
    job = Job(gpu_graph, TARGET, backend.kernels(TARGET, 0, {}), portable=False)
    return backend.compile(job, unchecked_artifact(gpu_graph, TARGET, 0), lambda _: None)


def launches(artifact):
    return artifact.code.plan.entries["main"].launches


def ticks(some):
    """By the stand-in's clock: one for every thread, and one for the event at the end."""
    return 1 + sum(math.prod(launch.grid) * math.prod(launch.block) for launch in some)


class TestSession:
    def test_frames_and_launches(self, small):
        with GpuDevice().open(small.artifact) as session:
            assert session.time_frames(2) == [10**6 * ticks(launches(small.artifact))] * 2
            each = [10**6 * ticks([launch]) for launch in launches(small.artifact)]
            assert session.time_kernels(3) == [each] * 3

    def test_parts_of_a_frame(self, small):
        whole = 10**6 * ticks(launches(small.artifact))
        with GpuDevice().open(small.artifact) as session:
            assert session.time_parts(2) == {
                "upload": [10**6] * 2, "compute": [whole] * 2, "download": [10**6] * 2
            }  # fmt: skip

    def test_entries_of_several_launches(self, small):
        """As a latency table has them: their launches are timed together."""
        stem, depthwise, pointwise, labels = map(parse_operation, small.calls)
        assert [type(op) for op in (stem, depthwise, pointwise, labels)] == [
            Stem, Depthwise, Pointwise, Labels
        ]  # fmt: skip
        block = InvertedResidual(
            depthwise.channels, depthwise.channels, pointwise.cout, depthwise.height,
            depthwise.width, expand=False,
        )  # fmt: skip
        artifact, calls = backend_of(TARGET).timed(small, [(stem, 1), (block, 2), (labels, 1)])
        assert calls == (stem, block, labels)
        assert artifact.calls == tuple(map(str, calls))
        first, *middle, last = launches(artifact)
        with GpuDevice().open(artifact) as session:
            (times,) = session.time_kernels(1)
        assert times == [10**6 * ticks(some) for some in ([first], middle, [last])]

    def test_launches_that_are_not_those_of_the_entries(self, small):
        wrong = replace(small.artifact, calls=small.calls[:-1])
        with (
            GpuDevice().open(wrong) as session,
            pytest.raises(WorkError, match="the network has 4 launches, not 3"),
        ):
            session.time_kernels(1)

    def test_what_it_says_of_itself(self, small):
        with GpuDevice().open(small.artifact) as session:
            assert session.machine["machine"] == "Stand-in"
            assert session.machine["architecture"] == "sm_61"
            assert session.machine["emulated"] is False
            assert session.ceilings(1) is None
            assert session.includes.startswith("the copy of the image to the GPU")

    def test_a_block_is_of_whole_calls_on_any_image(self, small):
        pauses = []
        protocol = Protocol(warmup=1, repeat=3, pause_s=0.5, sleep=pauses.append)
        with GpuDevice().open(small.artifact) as session:
            assert len(session.block(protocol)) == 3
            session.given = np.zeros((64, 64, 3), np.uint8)
            assert min(session.block(protocol)) > 0
            session.given = np.zeros((3, 3, 3), np.uint8)
            with pytest.raises(UserError, match="resize it"):
                session.block(protocol)
        assert pauses == [0.5] * 3

    def test_it_is_closed_in_the_end(self, small):
        device = GpuDevice()
        with device.open(small.artifact) as session:
            pass
        with pytest.raises(WorkError, match="closed"):
            session.network(session.given)
        assert device.use(small.artifact, lambda s: len(s.time_frames(1))) == 1

    def test_an_artifact_for_another_machine(self, small_artifact):
        with pytest.raises(UserError, match="no code for a GPU"), GpuDevice().open(small_artifact):
            pass


def test_what_it_is(monkeypatch):
    info = GpuDevice().info
    assert (info.cpu, info.architecture, info.cores) == ("Stand-in", "sm_61", 28)
    assert info.versions == {"nvidia-driver-cuda": "12.9"}
    assert info.frame.startswith("the compute part")
    assert not info.emulated
    monkeypatch.setattr("deploy.gpu.driver.LIBRARY", "libcuda-that-is-not-there.so")
    with pytest.raises(UserError, match="no NVIDIA driver on this machine"):
        GpuDevice()


class Few(Plan):
    """One network instead of seventy, in both roles."""

    def networks(self):
        return [(SHALLOW, "entries"), (SHALLOW, "calibration")]


class TestTable:
    @pytest.fixture(scope="class")
    def network(self):
        """Compiled as a table's are, for one architecture."""
        return Recipe(SPACE, TARGET, 0, {}).compile(SHALLOW)

    @pytest.fixture
    def made(self, network, monkeypatch):
        """The factory hands it out, and the reference is the same network."""

        class Made(OwnFactory):
            def build(self, genotype):
                assert genotype == SHALLOW
                return network

        monkeypatch.setattr(build, "factory_of", Made)
        monkeypatch.setattr(build, "MRMS_GENOTYPE", SHALLOW)
        monkeypatch.setattr(check, "MRMS_GENOTYPE", SHALLOW)
        monkeypatch.setattr(check, "_compile", lambda *_: network.artifact)

    PLAN = Few(SPACE, TARGET, 0, protocol=PROTOCOL)

    @pytest.fixture
    def table(self, made, tmp_path):
        return build_table(self.PLAN, GpuDevice(), tmp_path / "t.jsonl")

    def test_its_code_is_for_one_gpu_and_names_its_entries(self, network):
        artifact = network.artifact
        assert artifact.calls == tuple(map(str, network.calls))
        assert Counter(network.calls) == Counter(network.keys) == Counter(SPACE.keys(SHALLOW))
        assert list(artifact.code.cubins) == ["sm_61"]
        assert not artifact.code.ptx
        assert not artifact.parity["checked"]
        assert len(launches(artifact)) > len(artifact.calls)

    def test_entries_are_what_their_launches_take(self, table, network):
        found = {type(key).__name__: entry for key, entry in table.entries.items()}
        some = launches(network.artifact)
        assert found["Labels"].median_us == 1000 * ticks(some[-1:])
        assert found["Classifier"].median_us == 1000 * ticks(some[-3:-1])
        assert not found["Labels"].noisy
        assert set(table.entries) == set(SPACE.keys(SHALLOW))
        first, *_ = table.visits
        whole = 1000 * ticks(some)
        assert set(first.whole_us[0]) == {float(whole)}
        entries = sum(e.calls * e.samples_us[0][0] for e in first.entries.values())
        assert entries - 1000 * len(network.calls) == whole - 1000  # each has an event

    def test_where_it_comes_from(self, table):
        ((provenance, _),) = table.runs
        assert (provenance.cpu, provenance.architecture) == ("Stand-in", "sm_61")
        assert provenance.versions["nvidia-driver-cuda"] == "12.9"
        assert provenance.versions["cuda-nvrtc"]
        assert "a whole frame is the compute part" in provenance.protocol
        assert table.identity.target == TARGET.key
        assert (table.identity.target_name, table.identity.threads) == ("cuda", 0)

    def test_check(self, table):
        """What the space has besides is made up: the network has none of it."""
        ((provenance, visits),) = table.runs
        others = sorted(SPACE.all_keys() - set(table.entries), key=str)
        rest = {key: 1.0 + n for n, key in enumerate(others)}
        more = [visit("made up", rest, reference=table.baseline_us)]
        for n, key in enumerate(others[:MIN_CALIBRATION]):
            more.append(visit(str(n), {key: 1.0}, role="calibration", whole=100.0 + n))
        full = replace(table, runs=((provenance, (*visits, *more)),))
        result = check_networks(full, TARGET, GpuDevice(), [SHALLOW], protocol=PROTOCOL)
        # It is its own reference.
        assert result.rows[0].occasions_us == (full.baseline_us,) * OCCASIONS

    @pytest.mark.parametrize(
        ("variable", "value", "message"),
        [
            ("STAND_IN_NAME", "Another GPU", "measured with another cpu"),
            ("STAND_IN_VERSION", "12080", "measured with another versions"),
            ("STAND_IN_CAPABILITY", "90", "cuda is sm_61, and what would measure it is sm_90"),
        ],
    )
    def test_one_of_another_gpu(self, table, tmp_path, monkeypatch, variable, value, message):
        path = tmp_path / "t.jsonl"
        before = path.read_bytes()
        monkeypatch.setenv(variable, value)
        with pytest.raises(UserError, match=message):
            build_table(self.PLAN, GpuDevice(), path)
        assert path.read_bytes() == before
        assert load_table(path) == table

    def test_one_of_another_gpu_is_not_checked_here(self, table, monkeypatch):
        require_measurable(table, TARGET, GpuDevice())
        monkeypatch.setenv("STAND_IN_NAME", "Another GPU")
        with pytest.raises(UserError, match="it says: cpu 'Stand-in', now 'Another GPU'"):
            require_measurable(table, TARGET, GpuDevice())
