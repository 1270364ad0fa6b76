import os
import subprocess
import sys

import pytest
import tvm
from tvm import relax

from deploy.cpu.isa import AVX2
from deploy.cpu.kernels import emit
from deploy.cpu.passes.name_kernels import PROGRAM, NameKernels, program_of
from deploy.cpu.pipeline import lower_graph, make_kernels, network_passes
from deploy.graph.job import Job
from deploy.graph.passes import passes_before
from lut.ops import InvertedResidual, Resize
from tests.deploy.graphs import deployable, segmenter

OPERATION = Resize(9, 5, 7, 8, 9)


def lowered(graph, target, end="NameKernels"):
    """The module before the pass of this name."""
    kernels = make_kernels(target, 2, {})
    passes = passes_before(end, network_passes(kernels))
    return lower_graph(Job(graph, target, kernels, passes=passes))


def called_functions(function):
    (block,) = function.body.blocks
    calls = (binding.value for binding in block.bindings)
    return [call.args[0].name_hint for call in calls if isinstance(call, relax.Call)]


def kernels_of(module):
    return {v.name_hint: f for v, f in module.functions.items() if isinstance(f, tvm.tirx.PrimFunc)}


def test_names_say_what_is_computed(small_graph, cpu):
    before = lowered(small_graph, cpu)
    after = NameKernels()(before)
    kernels = kernels_of(after)
    for name, function in kernels.items():
        base, _, digits = name.rpartition("_")
        assert digits == function.attrs[PROGRAM][:12] == program_of(function)[:12]
        assert function.attrs["global_symbol"] == name
        assert base
        assert not base[-1].isdigit()
    renamed = dict(zip(called_functions(before["main"]), called_functions(after["main"]),
                       strict=True))  # fmt: skip
    assert set(renamed.values()) <= set(kernels)
    for old, new in renamed.items():
        assert program_of(before[old]) == program_of(after[new])
    assert called_functions(after["logits"])[0] == called_functions(after["main"])[0]


def test_nothing_but_the_names_is_another(small_graph, cpu):
    before = lowered(small_graph, cpu)
    after = NameKernels()(before)
    for entry in ("main", "logits"):
        texts = []
        for module in (before, after):
            text = module[entry].script()
            for name in called_functions(module[entry]):
                text = text.replace(f"call_tir({name},", "call_tir(kernel,")
            texts.append(text)
        assert "call_tir(kernel," in texts[0]
        assert texts[0] == texts[1]


def test_networks_that_share_a_kernel_share_its_name(cpu, tmp_path):
    graphs = [deployable(segmenter(classes=n), tmp_path) for n in (5, 6)]
    first, second = (set(kernels_of(NameKernels()(lowered(graph, cpu)))) for graph in graphs)
    assert first & second
    assert first - second
    assert second - first


def test_equal_kernels_are_one():
    x = relax.Var("x", relax.TensorType((1, 5, 4, 4), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        middle = builder.emit(relax.op.sqrt(x))
        builder.emit_func_output(builder.emit(relax.op.sqrt(middle)))
    module = relax.transform.LegalizeOps()(builder.get())
    (function,) = kernels_of(module).values()
    twice = tvm.IRModule(dict(module.functions.items()))
    twice["sqrt1"] = function.with_attr("global_symbol", "sqrt1")
    named = kernels_of(NameKernels()(twice))
    assert [name.rpartition("_")[0] for name in named] == ["tir_sqrt"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("inverted_residual12", "inverted_residual"),
        ("stem_pair", "stem_pair"),
        ("conv2d", "conv2d"),
        ("fused_conv2d3_add1_clip", "fused_conv2d_add_clip"),
        ("max_pool2d2", "max_pool2d"),
        ("a" * 300, "a" * 80),
    ],
)
def test_the_number_of_a_kernel_in_its_network_is_left_out(before, after):
    function = emit(OPERATION, AVX2)
    named = NameKernels()(tvm.IRModule({before: function}))
    assert list(kernels_of(named)) == [f"{after}_{program_of(function)[:12]}"]


def test_a_program_is_all_but_its_name():
    program = program_of(emit(OPERATION, AVX2))
    assert program == program_of(emit(OPERATION, AVX2))
    assert program == program_of(emit(OPERATION, AVX2).with_attr("global_symbol", "other"))
    assert program == program_of(emit(OPERATION, AVX2).with_attr(PROGRAM, "x"))
    assert program != program_of(emit(OPERATION, AVX2).with_attr("hmseg.emitted", 0))
    assert program != program_of(emit(Resize(9, 5, 7, 8, 10), AVX2))
    assert len(program) == 64


ANYWHERE = """
from deploy.cpu.isa import AVX2
from deploy.cpu.kernels import emit
from deploy.cpu.passes.name_kernels import program_of
from lut.ops import parse_operation
import sys

for text in reversed(sys.argv[1:]):
    print(program_of(emit(parse_operation(text), AVX2)))
"""


def test_it_is_the_same_in_another_process():
    operations = [OPERATION, InvertedResidual(16, 48, 24, 8, 12)]
    here = [program_of(emit(operation, AVX2)) for operation in operations]
    done = subprocess.run(
        [sys.executable, "-c", ANYWHERE, *map(str, operations)],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONHASHSEED": "1"},
    )  # fmt: skip
    assert done.stdout.split() == here[::-1]
    assert len(set(here)) == 2
