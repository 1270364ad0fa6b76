import numpy as np
import pytest
import tvm
from tvm import relax

from deploy.graph.passes import passes_before, run_passes
from lut.errors import UserError


@pytest.fixture
def module():
    x = relax.Var("x", relax.TensorType((2, 3), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        with builder.dataflow():
            many = relax.const(np.ones((2, 3), np.float32))
            total = builder.emit_output(builder.emit(relax.op.add(x, many)))
        builder.emit_func_output(total)
    return builder.get()


def passes():
    return [
        relax.transform.LegalizeOps(),
        relax.transform.ToNonDataflow(),
        relax.transform.AttachGlobalSymbol(),
    ]


def test_every_pass_runs_in_order(module):
    seen = []
    after = run_passes(module, passes(), seen.append)
    listed = [name for name in seen if name in [step.info.name for step in passes()]]
    assert listed == ["LegalizeOps", "ToNonDataflow", "AttachGlobalSymbol"]
    expected = module
    for step in passes():
        expected = step(expected)
    tvm.ir.assert_structural_equal(after, expected)


def test_the_module_after_each_as_a_file(module, tmp_path):
    run_passes(module, passes(), dump=tmp_path / "a" / "b")
    texts = {path.name: path.read_text() for path in (tmp_path / "a" / "b").iterdir()}
    assert sorted(texts) == [
        "00-import.py", "01-LegalizeOps.py", "02-ToNonDataflow.py", "03-AttachGlobalSymbol.py",
    ]  # fmt: skip
    assert "R.add(" in texts["00-import.py"]
    assert "R.call_tir(" in texts["01-LegalizeOps.py"]
    assert "R.dataflow()" in texts["01-LegalizeOps.py"]
    assert "R.dataflow()" not in texts["02-ToNonDataflow.py"]
    assert "private=True" in texts["02-ToNonDataflow.py"]
    assert "private=True" not in texts["03-AttachGlobalSymbol.py"]


def test_a_place_where_nothing_can_be_written(module, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        run_passes(module, passes(), dump=tmp_path / "file")


def test_nothing_is_written_unless_asked_for(module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_passes(module, passes())
    assert list(tmp_path.iterdir()) == []


def test_the_passes_before_one():
    assert [p.info.name for p in passes_before("ToNonDataflow", passes())] == ["LegalizeOps"]
    assert passes_before("LegalizeOps", passes()) == []
    with pytest.raises(ValueError, match="Nothing"):
        passes_before("Nothing", passes())
