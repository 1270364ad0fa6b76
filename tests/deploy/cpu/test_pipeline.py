import numpy as np
import pytest
import tvm

from deploy.build import run_in_process
from deploy.cpu.pipeline import Compiled, compile_graph, make_kernels, network_passes
from deploy.graph.reference import OnnxSession
from deploy.targets import resolve_target
from lut.errors import UserError
from tests.deploy.graphs import deployable, photo, segmenter


@pytest.fixture(scope="module")
def compiled(small_graph, cpu) -> Compiled:
    return compile_graph(small_graph, cpu)


def test_the_list_is_whole_and_in_order():
    """Splitting comes first, on graph-level Relax; memory is planned after the kernels exist."""
    names = [step.info.name for step in network_passes()]
    assert len(names) == len(set(names))
    assert names[0] == "SplitOutputs"
    order = [
        "LegalizeOps", "AnnotateTIROpPattern", "FuseOps", "FuseTIR", "CallTIRRewrite",
        "StaticPlanBlockMemory", "LowerAllocTensor", "VMShapeLower", "AttachGlobalSymbol",
    ]  # fmt: skip
    assert [name for name in names if name in order] == order


def test_each_call_gives_a_list_of_its_own():
    first = network_passes()
    first.clear()
    assert network_passes()


def test_kernels_are_placed_before_what_is_left_is_lowered():
    kernels = make_kernels(resolve_target("x86-64-v3"), 2, {})
    names = [step.info.name for step in network_passes(kernels)]
    assert names[:3] == ["Place", "PropagateLayouts", "CancelLayouts"]
    assert names[3:] == [step.info.name for step in network_passes()]


def test_the_passes_that_ran_are_those_of_the_list(small_graph, cpu):
    seen: list[str] = []
    compile_graph(small_graph, cpu, on_pass=seen.append)
    listed = [step.info.name for step in network_passes()]
    assert [name for name in seen if name in listed][: len(listed)]
    positions = [seen.index(name) for name in listed]
    assert positions == sorted(positions)
    assert seen[-1] == "machine code"


def test_passes_can_be_replaced(small_graph, cpu):
    seen: list[str] = []

    @tvm.transform.module_pass(opt_level=0, name="Watcher")
    def watcher(module, _context):
        seen.append("ran")
        return module

    passes = [watcher, *network_passes()]
    assert run_in_process(compile_graph(small_graph, cpu, passes=passes), photo()).shape
    assert seen == ["ran"]


def test_both_entries_share_their_kernels(compiled, cpu, tmp_path):
    """The labels' library has one kernel more than the logits': the arg max."""
    alone = compile_graph(deployable(segmenter(), tmp_path, "logits"), cpu)
    extra = [kernel for kernel in compiled.kernels if kernel not in alone.kernels]
    assert set(alone.kernels) < set(compiled.kernels)
    assert len(extra) == 1
    assert "argmax" in extra[0].name


def test_batch_norm_and_activations_are_fused_into_kernels(compiled):
    names = [kernel.name for kernel in compiled.kernels]
    assert any("conv2d" in k and "add" in k and "clip" in k for k in names)
    assert len(compiled.kernels) == len(set(compiled.kernels)) <= 8


@pytest.mark.parametrize("level", ["x86-64", "x86-64-v2", "x86-64-v3"])
def test_levels_give_the_same_numbers(small_graph, level):
    image = photo()
    got = run_in_process(compile_graph(small_graph, resolve_target(level)), image)[0]
    assert (got != OnnxSession(small_graph).run(image)[0]).mean() < 1e-3


def test_the_level_reaches_the_machine_code(small_graph, tmp_path):
    """AVX2's 256-bit registers (ymm) occur in v3's assembly, AVX-512's (zmm) only in v4's."""
    import shutil
    import subprocess

    if shutil.which("objdump") is None:
        pytest.skip("objdump is not installed")
    code = {}
    for level in ("x86-64", "x86-64-v3", "x86-64-v4"):
        path = tmp_path / f"{level}.so"
        compile_graph(small_graph, resolve_target(level)).save(path)
        done = subprocess.run(
            ["objdump", "-d", str(path)], capture_output=True, text=True, check=True
        )
        code[level] = done.stdout
    assert "ymm" not in code["x86-64"]
    assert "ymm" in code["x86-64-v3"]
    assert "zmm" not in code["x86-64-v3"]


def test_linking_without_a_compiler(compiled, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", str(tmp_path / "no-such-compiler"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="install a C compiler") as caught:
        compiled.save(tmp_path / "lib.so")
    assert "\n" not in str(caught.value)


def test_compiling_twice_gives_the_same_kernels(compiled, small_graph, cpu):
    again = compile_graph(small_graph, cpu)
    assert again.kernels == compiled.kernels
    image = photo()
    np.testing.assert_array_equal(run_in_process(again, image), run_in_process(compiled, image))
    assert compiled.seconds > 0
