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
from deploy.cpu.pipeline import compile_graph, lower_graph, make_kernels
from deploy.graph.describe import describe_kernels
from deploy.graph.job import Job
from deploy.object_cache import ObjectCache
from deploy.targets import resolve_target
from lut.ops import Resize

COMPACTION = "s_tir.CompactBufferAllocation"


@pytest.fixture
def compiled(small_graph, cpu):
    return compile_graph(Job(small_graph, cpu, make_kernels(cpu, 2, {})))


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


def test_kernels_stay_marked_until_they_are_compiled(small_graph, cpu):
    module = lower_graph(Job(small_graph, cpu, make_kernels(cpu, 2, {})))
    infos = describe_kernels(module, {})
    ours = [info.name for info in infos if info.template != "tvm"]
    assert ours
    assert all(machine_code.EMITTED in module[name].attrs for name in ours)


def test_linked_twice_it_is_the_same(compiled):
    assert compiled.link() == compiled.link()


def test_a_kernel_with_a_name_of_sixty_operators(cpu):
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
    x = np.random.default_rng(0).normal(size=shape[1:]).astype(np.float32)
    assert compiled.load().run("main", x).shape == shape[1:]


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
