import subprocess

import numpy as np
import onnx
import pytest
import tvm
from onnx import TensorProto, helper
from tvm import relax

from deploy.cpu import machine_code
from deploy.cpu.isa import AVX2
from deploy.cpu.kernels import emit
from deploy.cpu.pipeline import compile_graph, make_kernels
from deploy.targets import resolve_target
from lut.ops import Resize
from tests.deploy.graphs import photo

COMPACTION = "s_tir.CompactBufferAllocation"


@pytest.fixture
def compiled(small_graph, cpu):
    return compile_graph(small_graph, cpu, kernels=make_kernels(cpu, 2, {}))


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
    compiled = compile_graph(small_graph, resolved, kernels=make_kernels(resolved, 2, {}))
    given = []

    def watched(command, *arguments, **options):
        given.extend(str(word) for word in command)
        return real(command, *arguments, **options)

    real = subprocess.run if target == "arm" else subprocess.Popen
    monkeypatch.setattr(subprocess, real.__name__, watched)
    compiled.save(tmp_path / "lib.so")
    objects = [word for word in given if word.endswith((".o", ".c", ".cc", ".so"))]
    assert sum(word.endswith(".o") for word in objects) > len(compiled.libraries)
    sources = [word for word in objects if word.endswith((".c", ".cc"))]
    assert sources == ([] if target == "cpu" else [s for s in sources if "hmseg-link-" in s])


def test_a_kernel_with_a_name_longer_than_a_file_s(cpu, tmp_path):
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
    compiled = compile_graph(model, cpu)
    assert max(len(name) for name in compiled.libraries) > 255
    compiled.save(tmp_path / "lib.so")
    assert (tmp_path / "lib.so").stat().st_size > 0


def test_an_error_in_one_item_is_raised_and_the_order_kept():
    assert machine_code.on_all_cores(str, range(20)) == [str(i) for i in range(20)]
    with pytest.raises(ZeroDivisionError):
        machine_code.on_all_cores(lambda i: 1 / i, [1, 0, 2])
