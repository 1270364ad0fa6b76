import subprocess
from dataclasses import replace

import numpy as np
import onnx
import pytest
import tvm
from onnx import TensorProto, helper
from tvm import relax

from deploy.cpu import machine_code
from deploy.cpu.isa import AVX2, AVX512
from deploy.cpu.kernels import emit, module_of
from deploy.cpu.pipeline import compile_graph, make_kernels
from deploy.graph.job import Job
from deploy.object_cache import ObjectCache
from deploy.targets import resolve_target
from lut.ops import Resize
from tests.deploy.graphs import photo

COMPACTION = "s_tir.CompactBufferAllocation"


@pytest.fixture
def compiled(small_graph, cpu):
    return compile_graph(Job(small_graph, cpu, make_kernels(cpu, 2, {})))


def run(library, image):
    machine = relax.VirtualMachine(tvm.runtime.load_module(str(library)), tvm.cpu())
    return machine["main"](tvm.runtime.tensor(image[None])).numpy()


def passes_of(work):
    seen = []

    @tvm.instrument.pass_instrument
    class Watch:
        def run_before_pass(self, _module, info):
            seen.append(info.name)

    with tvm.transform.PassContext(instruments=[Watch()]):
        work()
    return seen


def test_ours_by_the_short_list_and_tvms_by_its_own():
    target = resolve_target("x86-64-v3")
    ours = emit(Resize(9, 5, 7, 8, 9), AVX2)
    x = relax.Var("x", relax.TensorType((1, 5, 9, 9), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        builder.emit_func_output(builder.emit(relax.op.nn.max_pool2d(x, (3, 3))))
    module = relax.transform.LegalizeOps()(builder.get())
    (pool,) = (f for f in module.functions.values() if isinstance(f, tvm.tirx.PrimFunc))
    short = passes_of(lambda: machine_code.compile_kernel("k", ours, target))
    long = passes_of(lambda: machine_code.compile_kernel("k", pool, target))
    assert COMPACTION not in short
    assert COMPACTION in long
    assert "tirx.MakePackedAPI" in {*short} & {*long}


def test_kernels_stay_marked_until_they_are_compiled(compiled):
    kernels = machine_code.split_entries(compiled.module)[1]
    ours = [k.name for k in compiled.kernels if k.template != "tvm"]
    assert ours
    assert all(machine_code.EMITTED in kernels[name].attrs for name in ours)


def test_loaded_and_saved_in_any_order(compiled, tmp_path):
    image = photo()
    expected = compiled.load()["main"](tvm.runtime.tensor(image[None])).numpy()
    for name in ("a.so", "b.so"):
        compiled.save(tmp_path / name)
        np.testing.assert_array_equal(run(tmp_path / name, image), expected)
    assert (tmp_path / "a.so").read_bytes() == (tmp_path / "b.so").read_bytes()
    again = compiled.load()["main"](tvm.runtime.tensor(image[None])).numpy()
    np.testing.assert_array_equal(again, expected)


@pytest.mark.parametrize("target", ["cpu", "arm"])
def test_the_linker_gets_objects_alone(small_graph, target, tmp_path, monkeypatch):
    """Constants would be compiled as text in C, were there no module of LLVM's at the root."""
    resolved = resolve_target(target)
    compiled = compile_graph(Job(small_graph, resolved, make_kernels(resolved, 2, {})))
    given = []

    def watched(command, *arguments, **options):
        given.extend(str(word) for word in command)
        return real(command, *arguments, **options)

    real = subprocess.run if target == "arm" else subprocess.Popen
    monkeypatch.setattr(subprocess, real.__name__, watched)
    compiled.save(tmp_path / "lib.so")
    objects = [word for word in given if word.endswith((".o", ".c", ".cc", ".so"))]
    assert sum(word.endswith(".o") for word in objects) > len(compiled.objects)
    sources = [word for word in objects if word.endswith((".c", ".cc"))]
    assert sources == ([] if target == "cpu" else [s for s in sources if "hmseg-link-" in s])


def test_a_kernel_with_a_name_of_sixty_operators(cpu, tmp_path):
    nodes, last = [], "x"
    for number in range(60):
        kind = ("Abs", "Neg", "Floor", "Ceil")[number % 4]
        nodes.append(helper.make_node(kind, [last], [f"t{number}"]))
        last = f"t{number}"
    shape = (1, 3, 8, 8)
    graph = helper.make_graph(
        nodes, "long", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, shape)],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    onnx.checker.check_model(model)
    compiled = compile_graph(Job(model, cpu))
    assert max(len(name) for name in compiled.objects) < 100
    compiled.save(tmp_path / "lib.so")
    assert (tmp_path / "lib.so").stat().st_size > 0


class Counted:
    """`compile_kernel`, and what it was called for."""

    def __init__(self, monkeypatch):
        self.names: list[str] = []
        self._real = machine_code.compile_kernel
        monkeypatch.setattr(machine_code, "compile_kernel", self)

    def __call__(self, name, function, target):
        self.names.append(name)
        return self._real(name, function, target)


def functions():
    return {f"k{n}": emit(Resize(9, 5, 7, 8, 8 + n), AVX2) for n in range(3)}


def test_what_is_in_the_cache_is_not_compiled(monkeypatch, tmp_path):
    target, counted = resolve_target("x86-64-v3"), Counted(monkeypatch)
    first = machine_code.object_files(functions(), target, ObjectCache(tmp_path))
    assert sorted(counted.names) == ["k0", "k1", "k2"]
    assert list(first) == ["k0", "k1", "k2"]
    assert len(set(first.values())) == 3
    again = machine_code.object_files(functions(), target, ObjectCache(tmp_path))
    assert len(counted.names) == 3
    assert again == first
    assert machine_code.object_files(functions(), target) == first
    assert len(counted.names) == 6


def test_what_was_damaged_is_compiled_again(monkeypatch, tmp_path):
    target = resolve_target("x86-64-v3")
    first = machine_code.object_files(functions(), target, ObjectCache(tmp_path))
    key = machine_code.object_key("k1", functions()["k1"], target)
    (tmp_path / key).write_bytes((tmp_path / key).read_bytes()[:-100])
    counted = Counted(monkeypatch)
    assert machine_code.object_files(functions(), target, ObjectCache(tmp_path)) == first
    assert counted.names == ["k1"]


def test_the_key_is_of_all_that_an_object_file_is_made_from(monkeypatch):
    target = resolve_target("x86-64-v3")
    op = Resize(9, 5, 7, 8, 9)
    function = emit(op, AVX2)

    def key(name="k", function=function, target=target):
        machine_code._compiler.cache_clear()
        return machine_code.object_key(name, function, target)

    rule = module_of(op).default_schedule(op, AVX2, 2)
    other = replace(rule, row_tasks=rule.row_tasks + 1)
    others = [
        key(name="k2"),
        key(function=emit(Resize(9, 5, 7, 8, 10), AVX2)),
        key(function=emit(op, AVX2, schedule=other)),
        key(function=emit(op, AVX512)),
        key(function=function.without_attr(machine_code.EMITTED)),
        key(target=resolve_target("x86-64-v4")),
        key(target=resolve_target("arm")),
    ]
    for change in (
        lambda: monkeypatch.setattr(machine_code, "version", lambda tool: f"{tool} 99"),
        lambda: monkeypatch.setattr(machine_code.codegen, "llvm_version_major", lambda: 99),
        lambda: monkeypatch.setattr(machine_code.lowering, "__file__", __file__),
        lambda: monkeypatch.setattr(machine_code, "__file__", __file__),
    ):
        change()
        others.append(key())
        monkeypatch.undo()
    assert key() == key(name="k", function=emit(op, AVX2), target=resolve_target("x86-64-v3"))
    assert len({key(), *others}) == 1 + len(others)
    machine_code._compiler.cache_clear()


@pytest.mark.parametrize("level", ["x86-64-v3", "arm"])
def test_an_object_file_is_that_which_llvm_writes_to_the_disk(tmp_path, level):
    """It is made in memory."""
    function, target = functions()["k0"], resolve_target(level)
    module = tvm.IRModule({"k": function.with_attr("global_symbol", "k")})
    config = tvm.target.Target(target.config)
    tvm.tirx.build(module, config, machine_code.PIPELINE).write_to_file(str(tmp_path / "k.o"))
    made = machine_code.compile_kernel("k", function, target)
    assert made == (tmp_path / "k.o").read_bytes()
    assert made[:4] == b"\x7fELF"


def test_an_error_in_one_kernel_is_raised_and_each_has_its_own(cpu, monkeypatch):
    monkeypatch.setattr(machine_code, "object_key", lambda *_: "")
    monkeypatch.setattr(machine_code, "compile_kernel", lambda _name, number, _target: 1 / number)
    kernels = {f"k{number}": number for number in range(1, 20)}
    found = machine_code.object_files(kernels, cpu)
    assert list(found.items()) == [(name, 1 / number) for name, number in kernels.items()]
    with pytest.raises(ZeroDivisionError):
        machine_code.object_files({"k1": 1, "k0": 0, "k2": 2}, cpu)
