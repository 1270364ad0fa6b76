"""`--precision fp16`: which maps are half, the rounding, and the gate that holds the loss down."""

import re
from dataclasses import replace

import numpy as np
import onnx
import pytest
import tvm
from typer.testing import CliRunner

from deploy.artifact_file import load_artifact, save_artifact
from deploy.build import build_artifact
from deploy.cli.hmseg_deploy import app
from deploy.gpu import emulator
from deploy.gpu.emulator import EmulatedNetwork, EmulatedProgram
from deploy.gpu.emulator import compile_source as compile_emulated
from deploy.gpu.kernels import resize
from deploy.gpu.lower import lower_kernels
from deploy.gpu.pipeline import compile_source
from deploy.gpu.store_half import halve
from deploy.graph.export import import_onnx
from deploy.graph.job import Job
from deploy.graph.reference import Reference
from deploy.precision import FP16, FP32
from deploy.runtime import Network
from deploy.targets import resolve_target
from deploy.verify import replay_golden, require
from lut.errors import UserError, WorkError
from lut.ops import Resize
from tests.deploy import user_networks
from tests.deploy.gpu.cubin import read_cubin
from tests.deploy.gpu.fixtures import ARCHITECTURES
from tests.deploy.gpu.run_kernels import TARGET, rule
from tests.deploy.graphs import photo, segmenter, write

# Parameters of kernels, as the source names them, that are constants.
CONSTANTS = {"weight", "bias", "factor", "shift", "row_weight", "column_weight"}


@pytest.fixture(scope="module")
def half_built(network_source):
    target = resolve_target("cuda", ARCHITECTURES, "fp16")
    return build_artifact(network_source.graph, target, threads=1)


@pytest.fixture(scope="module")
def half_artifact(half_built):
    return half_built[0]


@pytest.fixture(scope="module")
def lowered(network_source):
    return compile_source(
        Job(network_source.graph, resolve_target("cuda", "sm_61", "fp16"))
    ).lowered


@pytest.fixture(scope="module")
def whole(network_source):
    """The same network at fp32."""
    return compile_source(Job(network_source.graph, resolve_target("cuda", "sm_61"))).lowered


def maps_of(source: str) -> dict[str, tuple[int, int]]:
    """Of every kernel: how many of its maps are half, and how many float32."""
    found = {}
    for name, text in re.findall(r"^extern \"C\" .*?(\w+)\(([^)]*)\) \{", source, re.MULTILINE):
        pointers = re.findall(r"(\w+)\* __restrict__ (\w+)", text)
        whole = [
            n for kind, n in pointers if kind == "float" and n[: -len("_ptr")] not in CONSTANTS
        ]
        found[name.removesuffix("_kernel")] = (
            sum(kind == "half" for kind, _ in pointers),
            len(whole),
        )
    return found


class TestWhatIsHalf:
    def test_every_map_but_the_scores(self, lowered):
        """The arg max, and the planes of the entry `logits`, see scores that were never rounded."""
        maps = maps_of(lowered.source)
        whole = {name: counts for name, counts in maps.items() if counts[1]}
        ends = [name for name, (half, _) in whole.items() if not half]
        assert sorted(re.sub(r"\d+$", "", name) for name in ends) == ["labels_end", "resize"]
        (last,) = set(whole) - set(ends)  # what writes the scores
        assert last.startswith("pointwise")
        assert maps[last] == (1, 1)
        assert len(maps) - len(whole) > 40

    def test_constants_and_launches_stay(self, lowered, whole):
        assert lowered.constants == whole.constants
        for name, entry in whole.plan.entries.items():
            launches = lowered.plan.entries[name].launches
            assert [(a.grid, a.block) for a in launches] == [
                (b.grid, b.block) for b in entry.launches
            ]

    def test_the_maps_take_half_the_memory(self, lowered, whole):
        """Those of the entry for labels; the planes of `logits` are float32."""

        def moved(plan):
            launches = plan.entries["main"].launches
            regions = [region for launch in launches for region in launch.arguments]
            return sum(r.size for r in regions if r.offset >= plan.input.offset + plan.input.size)

        assert 0.5 < moved(lowered.plan) / moved(whole.plan) < 0.52

    def test_fp32_has_no_half(self, whole):
        assert "half" not in whole.source


class TestRounding:
    """A resize to the same size, whose map is read or written as half, only converts."""

    def convert(self, values, halved):
        op = Resize(1, 1, values.size, 1, values.size)
        function = resize.emit(op, rule(op))
        flags = [parameter.name == halved for parameter in function.params]
        target = tvm.target.Target(TARGET, host={"kind": "llvm"})
        source, codes = lower_kernels({"convert": halve(function, flags)}, target)
        (code,) = codes["convert"]
        output = np.empty(values.size, np.float16 if halved == "y" else np.float32)
        arrays = [values, *resize.pack(op, rule(op)), output]
        addresses = [arrays[number].ctypes.data for number in code.arguments]
        emulator.EmulatedGpu(source).launch(code.kernel, code.grid, code.block, addresses)
        return output

    def test_stored_to_nearest_ties_to_even(self):
        """Against numpy: numbers of every size, ties, what half has no number for."""
        generator = np.random.default_rng(0)
        finite = np.arange(0x7BFF, dtype=np.uint16).view(np.float16).astype(np.float64)
        ties = (finite[:-1] + finite[1:]) / 2
        scales = generator.normal(size=20000) * 2.0 ** generator.integers(-30, 17, 20000)
        values = np.concatenate([ties, -ties, scales, [65519, 65520, 1e6, -1e6, 0]])
        values = values.astype(np.float32)
        with np.errstate(over="ignore"):
            want = values.astype(np.float16)
        np.testing.assert_array_equal(self.convert(values, "y"), want)

    def test_read_exactly(self):
        finite = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
        finite = finite[np.isfinite(finite)].copy()
        np.testing.assert_array_equal(self.convert(finite, "x"), finite.astype(np.float32))


class TestArtifact:
    def test_the_gate_ran(self, half_built):
        """The loss is printed, and it is one of half, not of float32."""
        _, comparisons = half_built
        assert len(comparisons) == 5
        assert all(comparison.passed for comparison in comparisons)
        worst = max(comparison.max_logit_error for comparison in comparisons)
        assert 1e-3 < worst < 0.05
        assert max(comparison.differing_share for comparison in comparisons) < 0.002
        assert half_built[0].parity["checked"] is True

    @pytest.mark.parametrize("architecture", ["sm_61", "sm_90"])
    def test_machine_code_of_every_kernel(self, half_artifact, architecture):
        found = read_cubin(half_artifact.code.cubins[architecture])
        entries = half_artifact.code.plan.entries.values()
        assert found.architecture == architecture
        assert {launch.kernel for entry in entries for launch in entry.launches} <= found.kernels

    def test_arithmetic_in_ptx_is_float32(self, half_artifact):
        """Half is converted and nothing else: no sum and no product has its precision."""
        (text,) = (code.decode() for code in half_artifact.code.ptx.values())
        words = set(re.findall(r"\b[a-z]+(?:\.\w+)*\.f16\w*(?:\.\w+)*", text))
        assert words == {"cvt.f32.f16", "cvt.rn.f16.f32"}

    def test_it_says_its_precision(self, half_artifact, tmp_path):
        path = tmp_path / "half.hmseg"
        save_artifact(half_artifact, path)
        read = load_artifact(path)
        assert read.target.precision is FP16
        assert read.manifest()["target"]["precision"] == "fp16"

    def test_verify_and_bench_on_a_driver(
        self, half_artifact, lowered, driver_library, monkeypatch, tmp_path
    ):
        """The artifact on the stand-in: what is printed names the precision, and the loss."""
        assert lowered.plan == half_artifact.code.plan
        library = compile_emulated(lowered.source)
        monkeypatch.setattr("deploy.gpu.driver.LIBRARY", str(driver_library))
        monkeypatch.setenv("STAND_IN_KERNELS", str(library))
        path = tmp_path / "half.hmseg"
        save_artifact(half_artifact, path)
        done = CliRunner().invoke(app, ["verify", str(path)], env={"COLUMNS": "120"})
        assert done.exit_code == 0, done.output
        assert "against onnxruntime, maps in fp16" in done.output
        assert re.search(r"golden.*e-0\d.*yes", done.output)
        once = ["--repeat", "1", "--rounds", "1", "--warmup", "0", "--artifact", str(path)]
        timed = [
            "bench",
            "-m",
            "tiny-mrms",
            "-t",
            "cuda",
            "-r",
            "64x128",
            "--precision",
            "fp16",
            *once,
        ]
        done = CliRunner().invoke(app, timed, env={"COLUMNS": "120"})
        assert done.exit_code == 0, done.output
        assert "tiny-mrms 64x128, maps in fp16, Stand-in" in done.output
        assert "hmseg has its maps in fp16; the others compute in fp32" in done.output
        whole = replace(half_artifact, target=replace(half_artifact.target, precision=FP32))
        save_artifact(whole, path)
        done = CliRunner().invoke(app, timed)
        assert isinstance(done.exception, UserError)
        assert str(done.exception) == "the artifact is fp32, not fp16; leave --precision out"


def coarse(header: str) -> str:
    """The emulated half with 3 bits of its mantissa instead of 10, as an 8-bit float has."""
    return header.replace(
        "using half = _Float16;",
        """struct half {
  _Float16 v;
  half() {}
  half(float a) : v(a) {
    unsigned short bits;
    memcpy(&bits, &v, 2);
    bits = (bits + 64) & ~127;
    memcpy(&v, &bits, 2);
  }
  operator float() const { return v; }
};""",
    )


class TestTheGateCanFail:
    def test_too_few_bits(self, half_artifact, lowered, monkeypatch, tmp_path):
        """What an 8-bit float would lose is more than half may."""
        path = tmp_path / "cuda_fp16.h"
        text = emulator._HEADERS["cuda_fp16.h"].read_text()
        path.write_text(coarse(text))
        assert path.read_text() != text
        monkeypatch.setitem(emulator._HEADERS, "cuda_fp16.h", path)
        code = EmulatedProgram(lowered.source, half_artifact.code, half_artifact.metadata)
        network = Network(half_artifact, code)
        replayed = replay_golden(network)
        assert replayed.max_logit_error > replayed.tolerance
        with pytest.raises(WorkError, match="tvm does not match onnxruntime"):
            require([replayed])

    def test_a_network_beyond_half(self, tmp_path):
        """Its maps reach a million, where half has only infinity; fp32 has no trouble."""
        million = onnx.numpy_helper.from_array(np.float32(1e6))
        larger = [
            onnx.helper.make_node("Constant", [], ["million"], value=million),
            onnx.helper.make_node("Mul", ["features", "million"], ["activated"], name="larger"),
        ]
        write(segmenter(extra=larger), tmp_path / "m.onnx")
        graph = import_onnx(tmp_path / "m.onnx", mean=None, std=None)
        build_artifact(graph, resolve_target("cuda", "sm_61"), threads=1)
        with pytest.raises(WorkError, match="; compile it with --precision fp32") as caught:
            build_artifact(graph, resolve_target("cuda", "sm_61", "fp16"), threads=1)
        assert re.search("logit error (inf|nan)", str(caught.value))
        assert "first difference: " in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_users_network(tmp_path):
    """Kernels that TVM schedules have half maps as ours."""
    path = tmp_path / "network.onnx"
    user_networks.save_as_user(user_networks.LrAspp(), path)
    graph = import_onnx(path, mean=None, std=None)
    lowered = compile_source(Job(graph, resolve_target("cuda", "sm_61", "fp16"))).lowered
    maps = maps_of(lowered.source)
    ours = ("stem", "pointwise", "depthwise", "global_mean", "resize", "labels_end")
    left = {name: counts for name, counts in maps.items() if not name.startswith(ours)}
    assert left
    assert all(half >= 2 for half, _ in left.values())
    image = photo(user_networks.SIZE)
    labels, logits = Reference(graph)(image)
    network = EmulatedNetwork(lowered.source, lowered.plan, lowered.constants)
    got = network.run(image, "logits").view(np.float32).reshape(logits.shape)
    tolerance = FP16.relative_tolerance * max(1, np.abs(logits).max())
    np.testing.assert_allclose(got, logits, rtol=0, atol=tolerance)
    assert (network.run(image).reshape(labels.shape) != labels).mean() < 2e-3
