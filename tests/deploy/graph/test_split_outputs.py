import numpy as np
import tvm
from tvm import relax

from deploy.cpu.pipeline import compile_graph
from deploy.graph.ends import with_logits_output
from deploy.graph.importer import import_graph
from deploy.graph.job import Job
from deploy.graph.reference import Reference
from deploy.graph.split_outputs import SplitOutputs
from tests.deploy.graphs import deployable, photo, segmenter


def functions(module: tvm.IRModule) -> dict[str, relax.Function]:
    return {
        var.name_hint: function
        for var, function in module.functions.items()
        if isinstance(function, relax.Function)
    }


def calls(function: relax.Function) -> list[str]:
    found: list[str] = []

    def visit(expr: relax.Expr) -> None:
        if isinstance(expr, relax.Call) and isinstance(expr.op, tvm.ir.Op):
            found.append(expr.op.name)

    relax.analysis.post_order_visit(function, visit)
    return found


def test_structure(small_graph):
    before = import_graph(with_logits_output(small_graph))
    assert isinstance(before["main"].ret_ty, relax.TupleType)
    after = SplitOutputs()(before)
    assert set(functions(after)) == {"main", "logits"}
    main, logits = after["main"], after["logits"]
    assert [int(n) for n in main.ret_ty.shape] == [1, 64, 64]
    assert [int(n) for n in logits.ret_ty.shape] == [1, 5, 64, 64]
    assert "relax.argmax" in calls(main)
    assert "relax.argmax" not in calls(logits)  # dead in this entry
    shared = len(calls(logits))
    assert calls(main)[:shared] == calls(logits)
    assert calls(main)[shared:] == ["relax.argmax", "relax.astype"]
    relax.analysis.well_formed(after)  # raises
    assert set(functions(before)) == {"main"}  # the input module is as it was


def test_a_module_with_one_output_is_left_as_it_is(tmp_path):
    module = import_graph(deployable(segmenter(), tmp_path, "logits"))
    after = SplitOutputs()(module)
    tvm.ir.assert_structural_equal(after, module)
    assert set(functions(after)) == {"main"}


def test_numbers(small_graph, cpu):
    library = compile_graph(Job(small_graph, cpu)).load()
    image = photo()
    labels, logits = Reference(small_graph)(image)
    np.testing.assert_allclose(library.run("logits", image), logits, atol=1e-4)
    assert (library.run("main", image) != labels).mean() < 1e-3
