import importlib.util

import numpy as np
import pytest
import tvm

from deploy.cpu import link, machine_code
from deploy.cpu.pipeline import (
    Compiled,
    compile_graph,
    lower_graph,
    make_kernels,
    network_passes,
)
from deploy.graph.job import Job
from deploy.graph.reference import OnnxSession
from deploy.object_cache import ObjectCache
from deploy.targets import resolve_target
from lut.errors import UserError
from tests.conditions import OBJDUMP
from tests.deploy.graphs import deployable, photo, segmenter


def run(compiled: Compiled, image: np.ndarray) -> np.ndarray:
    """What ``main`` makes of one image."""
    return compiled.load().run("main", image)


@pytest.fixture(scope="module")
def compiled(small_graph, cpu) -> Compiled:
    return compile_graph(Job(small_graph, cpu))


def test_the_list_is_whole_and_in_order():
    """Splitting comes first, on graph-level Relax; kernels get their names last."""
    names = [step.info.name for step in network_passes()]
    assert len(names) == len(set(names))
    assert names[0] == "SplitOutputs"
    order = [
        "LegalizeOps", "AnnotateTIROpPattern", "FuseOps", "FuseTIR", "RewriteDataflowReshape",
        "NameKernels",
    ]  # fmt: skip
    assert [name for name in names if name in order] == order
    assert names[-2:] == order[-2:]


def test_the_kernels_are_the_list_s_beginning():
    """A target without kernels leaves them out, and nothing else."""
    kernels = make_kernels(resolve_target("x86-64-v3"), 2, {})
    names = [step.info.name for step in network_passes(kernels)]
    ours = ["ChannelsFirst", "MergeLinear", "Place", "PropagateLayouts", "CancelLayouts"]
    assert names[:5] == ours
    assert names[5:] == [step.info.name for step in network_passes()]
    assert make_kernels(resolve_target("x86-64-v2"), 2, {}) is None


def test_each_call_gives_a_list_of_its_own():
    first = network_passes()
    first.clear()
    assert network_passes()


def test_the_passes_that_ran_are_those_of_the_list(small_graph, cpu):
    seen: list[str] = []
    compile_graph(Job(small_graph, cpu), seen.append)
    listed = [step.info.name for step in network_passes()]
    # One that runs inside another has its name too.
    assert list(dict.fromkeys(name for name in seen if name in listed)) == listed
    assert seen[-1] == "machine code"


def test_passes_can_be_replaced(small_graph, cpu):
    seen: list[str] = []

    @tvm.transform.module_pass(opt_level=0, name="Watcher")
    def watcher(module, _context):
        seen.append("ran")
        return module

    passes = [watcher, *network_passes()]
    assert run(compile_graph(Job(small_graph, cpu, passes=passes)), photo()).shape
    assert seen == ["ran"]


def test_both_entries_share_their_kernels(compiled, cpu, tmp_path):
    """The labels' library has one kernel more than the logits': the arg max."""
    alone = compile_graph(Job(deployable(segmenter(), tmp_path, "logits"), cpu))
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
    got = run(compile_graph(Job(small_graph, resolve_target(level))), image)
    assert (got != OnnxSession(small_graph).run(image)[0]).mean() < 1e-3


@OBJDUMP.mark
def test_the_level_reaches_the_machine_code(small_graph, tmp_path):
    """AVX2's 256-bit registers (ymm) occur in v3's assembly, AVX-512's (zmm) only in v4's."""
    import subprocess

    code = {}
    for level in ("x86-64", "x86-64-v3", "x86-64-v4"):
        path = tmp_path / f"{level}.so"
        path.write_bytes(compile_graph(Job(small_graph, resolve_target(level))).link())
        done = subprocess.run(
            ["objdump", "-d", str(path)], capture_output=True, text=True, check=True
        )
        code[level] = done.stdout
    assert "ymm" not in code["x86-64"]
    assert "ymm" in code["x86-64-v3"]
    assert "zmm" not in code["x86-64-v3"]


def test_linking_without_a_compiler(compiled, monkeypatch):
    monkeypatch.setattr(link, "host_compiler", lambda: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match="pip install ziglang, or install gcc") as caught:
        compiled.link()
    assert "\n" not in str(caught.value)


def test_linking_with_ziglang_alone(compiled, monkeypatch):
    monkeypatch.setattr(link, "host_compiler", lambda: None)
    image = photo()
    expected = run(compiled, image)
    np.testing.assert_array_equal(run(compiled, image), expected)


def test_compiling_twice_gives_the_same_kernels(compiled, small_graph, cpu):
    again = compile_graph(Job(small_graph, cpu))
    assert again.kernels == compiled.kernels
    image = photo()
    np.testing.assert_array_equal(run(again, image), run(compiled, image))


@pytest.fixture
def counted(monkeypatch):
    """The names of the kernels that are compiled."""
    names: list[str] = []
    real = machine_code.compile_kernel

    def compile_kernel(name, function, target):
        names.append(name)
        return real(name, function, target)

    monkeypatch.setattr(machine_code, "compile_kernel", compile_kernel)
    return names


@pytest.mark.parametrize("ours", [True, False])
def test_the_second_time_nothing_is_compiled_and_the_library_is_the_same(
    small_graph, cpu, tmp_path, counted, ours
):
    libraries = []
    for cache in (ObjectCache(tmp_path / "o"), ObjectCache(tmp_path / "o"), None):
        kernels = make_kernels(cpu, 2, {}) if ours else None
        before = len(counted)
        made = compile_graph(Job(small_graph, cpu, kernels, cache=cache))
        libraries.append(made.link())
        new = sorted(counted[before:])
        assert new == ([] if len(libraries) == 2 else sorted(made.objects))
        assert {info.name for info in made.kernels} == set(made.objects)
    assert libraries[0] == libraries[1] == libraries[2]


def test_another_number_of_classes_compiles_its_ends_alone(cpu, tmp_path, counted):
    graphs = [deployable(segmenter(classes=n), tmp_path) for n in (5, 6)]
    cache = ObjectCache(tmp_path / "objects")
    first, second = (
        compile_graph(Job(graph, cpu, make_kernels(cpu, 2, {}), cache=cache)) for graph in graphs
    )
    new = counted[len(first.objects) :]
    assert set(new) == set(second.objects) - set(first.objects)
    texts = {info.name: info.spec for info in second.kernels}
    assert 0 < len(new) < len(second.objects)
    assert all("6" in texts[name] for name in new)


def test_the_module_after_each_pass_is_written(small_graph, cpu, tmp_path):
    lower_graph(Job(small_graph, cpu, make_kernels(cpu, 2, {}), dump=tmp_path / "d"))
    listed = [step.info.name for step in network_passes(make_kernels(cpu, 2, {}))]
    names = ["import", *(name.rpartition(".")[2] for name in listed)]
    files = sorted((tmp_path / "d").iterdir())
    assert [path.name for path in files] == [f"{n:02}-{name}.py" for n, name in enumerate(names)]
    texts = {path.name: path.read_text() for path in files}
    assert "R.nn.conv2d" in texts["00-import.py"]
    assert max(map(len, texts.values())) < 1_000_000  # no weights
