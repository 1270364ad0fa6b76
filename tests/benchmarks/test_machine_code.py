import subprocess
import sys

import pytest

from benchmarks.machine_code import (
    CPUS,
    ENTRIES,
    Objects,
    Transcript,
    cpu_frame,
    cpu_hashes,
    cpu_target,
    differences,
    split_source,
)
from deploy import ir
from tests.deploy.graphs import deployable, segmenter


def double(parameter: str, factor: float = 2):
    def signature(f: ir.PrimFuncBuilder):
        x, y = f.param(parameter, (8,)), f.param("y", (8,))
        return lambda: ir.store(y, ir.load(x, 0, lanes=8) * ir.const(factor, 8), 0, lanes=8)

    return ir.prim_func("double", signature)


@pytest.mark.parametrize("name", CPUS)
def test_instructions_are_told_from_names(name: str, tmp_path):
    objects = Objects(cpu_target(name), tmp_path)
    first = objects.sha(double("x"))
    renamed = objects.sha(double("another_name"))
    other = objects.sha(double("x", 3))
    again = Objects(objects.target, None).sha(double("x"))
    assert len({first, renamed, other}) == 3
    assert again == first
    assert objects.code[renamed] == objects.code[first] != objects.code[other]
    assert {path.stem for path in tmp_path.glob("*.o")} == {first, renamed, other}


def test_a_frame_is_the_same_again_and_another_graph_differs(tmp_path):
    objects = Objects(cpu_target("avx2"), None)
    graph = deployable(segmenter(), tmp_path)
    module = cpu_frame(graph, objects.target)
    first = cpu_hashes(graph, objects)
    assert cpu_hashes(graph, objects) == first
    for entry in ENTRIES:
        transcript = Transcript(module[entry])
        assert len(first[entry]) == len(transcript.calls) > 0
        text = "\n".join(transcript.lines)
        assert not [name for name in transcript.calls if f" {name}(" in text]
    other = cpu_hashes(deployable(segmenter(classes=7), tmp_path), objects)
    assert other["program"] != first["program"]
    assert other["constants"] != first["constants"]
    assert other["main"] != first["main"]


SOURCE = """#define X
extern "C" __global__ void __launch_bounds__(8) NAME_kernel(float* __restrict__ x_ptr);
extern "C" __global__ void NAME1_kernel(float* __restrict__ x_ptr);
extern "C" __global__ void __launch_bounds__(8) NAME_kernel(float* __restrict__ x_ptr) {
  x_ptr[0] = 1.0f;
}

extern "C" __global__ void NAME1_kernel(float* __restrict__ x_ptr) {
  x_ptr[0] = 2.0f;
}
"""


def test_a_source_is_split_into_kernels_without_names():
    head, kernels = split_source(SOURCE.replace("NAME", "resize"))
    assert head == "#define X\n"
    assert list(kernels) == ["resize_kernel", "resize1_kernel"]
    assert kernels["resize1_kernel"] == (
        'extern "C" __global__ void k(float* __restrict__ x_ptr) {\n  x_ptr[0] = 2.0f;\n}'
    )
    renamed = split_source(SOURCE.replace("NAME", "another"))
    assert (renamed[0], [*renamed[1].values()]) == (head, [*kernels.values()])


def test_differences_name_network_target_and_position():
    old = {"a/avx2": {"main": ["0", "1"], "program": ["5"]}, "b/avx2": {"main": ["0"]}}
    new = {"a/avx2": {"main": ["0", "2"], "program": ["6"]}, "c/avx2": {"main": ["0"]}}
    assert differences(old, old, {}) == []
    assert differences(new, old, {"1": "7", "2": "7"}) == [
        "a/avx2: main[1] was 1, is 2 (the same instructions)",
        "a/avx2: program[0] was 5, is 6",
        "b/avx2: only in the other file",
        "c/avx2: only in the new one",
    ]
    assert differences(
        {"a": {"main": ["1"]}}, {"a": {"main": ["2", "3"]}}, {"1": "7", "2": "8"}
    ) == [
        "a: main has 1 calls, had 2",
        "a: main[0] was 2, is 1 (other instructions)",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--networks", "mrms"], "name another file with --json"),
        (["--compare", "missing.json"], "missing.json: no such file"),
        (["--compare", "pyproject.toml"], "pyproject.toml: not written by benchmarks.machine_code"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments: list[str], message: str):
    command = [sys.executable, "-m", "benchmarks.machine_code", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
