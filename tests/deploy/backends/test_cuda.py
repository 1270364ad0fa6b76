"""The backend for NVIDIA's GPUs where there is none: machine code for each architecture, the parity
gate by emulation, and on the stand-in for a driver what it times and beside what."""

import re
from dataclasses import replace

import numpy as np
import onnx
import pytest

from deploy.artifact import Golden
from deploy.artifact_file import load_artifact, save_artifact
from deploy.backends import backend_of, cuda
from deploy.backends.base import Job
from deploy.bench import OURS, bench
from deploy.build import build_artifact
from deploy.gpu import emulator
from deploy.gpu.emulator import NoCompilerError
from deploy.gpu.program import GpuProgram
from deploy.graph.reference import OnnxSession
from deploy.measure import gpu_peers
from deploy.measure.interleave import Protocol
from deploy.resolution import Resolution
from deploy.street import draw_street
from deploy.targets import resolve_target
from lut.errors import UserError
from tests.deploy.gpu.cubin import read_cubin
from tests.deploy.graphs import photo

MOST_BYTES = 4_000_000  # for each architecture
ONCE = Protocol(warmup=0, repeat=1, rounds=2, pause_s=0)
TARGET = resolve_target("cuda", "sm_61")
BACKEND = backend_of(TARGET)
NO_DRIVER = "libcuda-that-is-not-there.so"


def launched(program: GpuProgram) -> set[str]:
    entries = program.plan.entries.values()
    return {launch.kernel for entry in entries for launch in entry.launches}


@pytest.mark.parametrize("architecture", ["sm_61", "sm_90"])
def test_machine_code_of_every_kernel(cuda_artifact, architecture):
    """The cubin's own header names the architecture; its symbols are the kernels of the plan."""
    found = read_cubin(cuda_artifact.code.cubins[architecture])
    assert found.architecture == architecture
    assert launched(cuda_artifact.code) <= found.kernels


def test_ptx_for_later_architectures(cuda_artifact):
    (text,) = (code.decode().rstrip("\0") for code in cuda_artifact.code.ptx.values())
    assert list(cuda_artifact.code.ptx) == ["compute_90"]
    assert re.search(r"^\.target sm_90$", text, re.MULTILINE)
    assert set(re.findall(r"\.visible \.entry (\w+)\(", text)) == launched(cuda_artifact.code)
    # What only reads is read through the cache for constants; no product is rounded to TF32.
    assert "ld.global.nc" in text
    assert "tf32" not in text


def test_nothing_is_left_to_compile(cuda_artifact, cuda_file):
    """No source and no library: only machine code, PTX, numbers and the plan."""
    assert isinstance(cuda_artifact.code, GpuProgram)
    assert cuda_artifact.code.opencl == ""
    assert set(cuda_artifact.code.members()) == {
        "gpu/plan.json", "gpu/constants.bin", "gpu/sm_61.cubin", "gpu/sm_90.cubin",
        "gpu/compute_90.ptx",
    }  # fmt: skip
    assert cuda_file.stat().st_size < MOST_BYTES


def test_of_a_large_image_too_it_stays_small(cuda_artifact, tmp_path):
    """Golden image, labels and scores grow with the image; scores of noise compress least."""
    size = Resolution(1024, 2048)
    rng = np.random.default_rng(0)
    labels = np.repeat(rng.integers(0, 11, (32, 64), np.uint8), 32, 0).repeat(32, 1)
    scores = rng.normal(size=(11, *size)).astype(np.float32)
    large = replace(
        cuda_artifact, metadata=replace(cuda_artifact.metadata, resolution=size),
        golden=Golden.sampled(draw_street(size), labels, scores),
    )  # fmt: skip
    save_artifact(large, tmp_path / "large.hmseg")
    assert (tmp_path / "large.hmseg").stat().st_size < MOST_BYTES


def test_what_the_artifact_says(gpu_graph, cache, tmp_path):
    """Where there is no GPU its source is emulated on this CPU; written and read it is the same."""
    steps: list[str] = []
    target = resolve_target("cuda", "sm_61,sm_90")
    artifact, comparisons = build_artifact(
        gpu_graph, target, threads=1, cache=cache, on_step=steps.append
    )
    assert steps[0] == "Place"
    first = steps.index("machine code for sm_61")
    assert steps[first : first + 5] == [
        "machine code for sm_61",
        "machine code for sm_90",
        "compiling the CUDA source for this CPU",
        "parity gate, emulated",
        "emulating, run 1: kernel 1 of 4",
    ]
    assert steps[-1] == "emulating, run 10: kernel 4 of 4"
    assert [comparison.passed for comparison in comparisons] == [True] * 5
    assert artifact.parity["checked"] is True
    assert artifact.parity["how"] == "the CUDA source, emulated on the CPU"
    assert artifact.versions["cuda-nvrtc"] == "12.9"
    save_artifact(artifact, tmp_path / "a.hmseg")
    read = load_artifact(tmp_path / "a.hmseg")
    assert read.code == artifact.code
    assert read.target == artifact.target
    assert read.manifest() == artifact.manifest()


def test_our_kernels_cover_the_network(cuda_artifact):
    assert {kernel.template for kernel in cuda_artifact.kernels} == {
        "stem", "pointwise", "depthwise", "resize", "global_mean", "labels_end",
    }  # fmt: skip


def test_of_a_large_image_one_is_emulated(gpu_graph, cache, monkeypatch):
    monkeypatch.setattr(cuda, "MOST_EMULATED_PIXELS", 64 * 64 - 1)
    _, comparisons = build_artifact(gpu_graph, TARGET, threads=1, cache=cache)
    assert [comparison.image for comparison in comparisons] == ["golden"]


def test_without_a_compiler_it_is_not_checked(gpu_graph, cache, monkeypatch):
    def missing(_source: str) -> None:
        raise NoCompilerError("emulating a GPU needs a C++ compiler")

    monkeypatch.setattr(emulator, "compile_source", missing)
    artifact, comparisons = build_artifact(gpu_graph, TARGET, threads=1, cache=cache)
    assert comparisons == []
    assert artifact.parity["checked"] is False
    assert re.search("no NVIDIA .*; emulating a GPU needs a C", artifact.parity["reason"])


def test_a_prefix_is_what_onnxruntime_gives(gpu_graph):
    """Emulated, for finding the first layer that differs."""
    inferred = onnx.shape_inference.infer_shapes(gpu_graph, strict_mode=True)
    prefix = onnx.utils.Extractor(inferred).extract_model(
        [gpu_graph.graph.input[0].name], ["scores"]
    )
    wanted = OnnxSession(prefix).run(photo())[0]
    found = BACKEND.run_prefix(Job(prefix, TARGET, BACKEND.kernels(TARGET, 1, {})), photo(), None)
    assert found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize(
    ("architecture", "setting", "value", "reason"),
    [
        ("sm_90", "STAND_IN_CAPABILITY", "61", "no code for this GPU, sm_61"),
        ("sm_90", "STAND_IN_VERSION", "11040", "the NVIDIA driver is too old"),
        ("sm_61", "STAND_IN_MEMORY", "1000", "free some"),
    ],
)
def test_compiling_for_another_machine_where_there_is_a_gpu(
    any_driver, gpu_graph, monkeypatch, architecture, setting, value, reason
):
    """Nothing that this machine's GPU lacks keeps an artifact from being made and checked."""
    monkeypatch.setenv(setting, value)
    made, comparisons = build_artifact(gpu_graph, resolve_target("cuda", architecture), threads=1)
    assert comparisons
    assert made.parity["checked"] is True
    assert "emulated on the CPU" in made.parity["how"]
    assert reason in made.parity["how"]


def test_the_gate_runs_on_the_gpu(any_driver, gpu_graph):
    artifact, comparisons = build_artifact(gpu_graph, TARGET, threads=1)
    assert [comparison.passed for comparison in comparisons] == [True] * 5
    where = {"gpu": "Stand-in", "code": "sm_61", "precision": "fp32"}
    assert where.items() <= artifact.parity.items()
    assert "how" not in artifact.parity


class TestBench:
    """On the stand-in for a driver, whose clock counts threads: what is said, not how fast."""

    def test_without_a_gpu_that_they_know_every_peer_is_absent(
        self, driver, cuda_artifact, network_source
    ):
        image = cuda_artifact.golden.image
        result = bench(cuda_artifact, network_source, image, ONCE, threads=1)
        assert set(result.samples) == {OURS}
        peers = {"torch eager", "torch.compile", "onnxruntime CUDA", "TensorRT"}
        assert set(result.absent) == peers
        assert all(result.absent.values())
        said = result.to_json()
        assert not {"notes", "differing_labels", "memory"} & set(said)
        assert said["parts_ms"].pop("compute") > 1e4
        assert said["parts_ms"] == {"upload": 1, "download": 1}
        assert (said["threads"], said["machine"]["code"]) == (0, "sm_61")
        assert said["machine"]["machine"] == "Stand-in"
        assert "the labels back on the host" in said["includes"]

    def test_a_peer_is_compared(self, driver, cuda_artifact, network_source, monkeypatch):
        """onnxruntime runs here as the peers do on a GPU, all of it on the CPU, which it says."""
        monkeypatch.setattr(gpu_peers, "PROVIDERS", {"a peer": ("AzureExecutionProvider",)})
        image = cuda_artifact.golden.image
        result = bench(cuda_artifact, network_source, image, ONCE, threads=1)
        assert set(result.samples) == {OURS, "a peer"}
        assert result.ratios["a peer"].median > 0
        assert result.notes == {"a peer": "onnxruntime runs some of its nodes on the CPU"}
        assert 0 <= result.differing["a peer"] < 1e-3

    def test_other_ends(self, driver, cuda_artifact, network_source):
        metadata = replace(cuda_artifact.metadata, output="logits")
        with pytest.raises(UserError, match="from image to labels: leave --input and --output out"):
            bench(
                replace(cuda_artifact, metadata=metadata), network_source, photo((64, 128)), ONCE,
                threads=1,
            )  # fmt: skip


class TestPlace:
    def test_options_of_other_machines(self):
        BACKEND.check_place(None, None)
        with pytest.raises(UserError, match="GPU code runs on this machine alone"):
            BACKEND.check_place(None, object())
        with pytest.raises(UserError, match="--threads is of a CPU"):
            BACKEND.check_place(2, None)
        with pytest.raises(UserError, match="GPU code runs on this machine alone"):
            BACKEND.devices(1, object())

    def test_only_this_machines_gpu_is_measured(self, driver):
        for text, precision in (("cuda", "fp16"), ("nvidia/geforce-gtx-1080-ti", "fp32")):
            asked = resolve_target(text, None, precision)
            found = BACKEND.measured_target(asked, text)
            assert (found.features, found.precision) == (("sm_61",), asked.precision)
        with pytest.raises(UserError, match="is for sm_90, this machine's GPU is sm_61; measure"):
            BACKEND.measured_target(resolve_target("nvidia/nvidia-h100"), "nvidia/nvidia-h100")

    def test_there_is_none(self, monkeypatch):
        monkeypatch.setattr("deploy.gpu.driver.LIBRARY", NO_DRIVER)
        for ask in (
            lambda: BACKEND.measured_target(TARGET, "cuda"),
            lambda: BACKEND.devices(1, None),
        ):
            with pytest.raises(UserError, match="no NVIDIA driver on this machine"):
                ask()

    def test_schedules_are_for_one_architecture(self):
        assert BACKEND.tunes(TARGET)
        assert not BACKEND.tunes(resolve_target("cuda", "sm_61,sm_90"))
        assert BACKEND.record_threads(8) == 0
        assert BACKEND.architecture(TARGET) == "sm_61"
