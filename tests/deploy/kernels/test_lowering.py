import pytest
import tvm
from tvm import relax

from deploy.kernels import emit
from deploy.kernels.isa import AVX2
from deploy.kernels.lowering import EMITTED, PIPELINE
from tests.deploy.kernels import helpers
from tests.deploy.kernels.specs import SMALL

# What makes TVM's own list change a buffer; ours are as large as they shall be.
COMPACTION = "s_tir.CompactBufferAllocation"
TARGET = helpers.target(AVX2)


def machine_code(functions, pipeline, path):
    built = tvm.tirx.build(tvm.IRModule(functions), target=TARGET, pipeline=pipeline)
    built.write_to_file(str(path))
    return path.read_bytes()


@pytest.mark.parametrize("spec", SMALL, ids=lambda spec: type(spec).__name__)
def test_the_passes_left_out_do_nothing(spec, tmp_path):
    function = {"k": emit(spec, AVX2).with_attr("global_symbol", "k")}
    ours = machine_code(function, PIPELINE, tmp_path / "ours.o")
    with tvm.transform.PassContext(disabled_pass=[COMPACTION]):
        theirs = machine_code(function, "default", tmp_path / "theirs.o")
    assert ours == theirs


def lowered(module, pipeline):
    bound = tvm.tirx.transform.BindTarget(TARGET.with_host(TARGET))(module)
    steps, *_ = tvm.tirx.get_tir_pipeline(pipeline)
    return steps(bound)


def test_what_tvm_made_is_lowered_by_its_own_list():
    x = relax.Var("x", relax.TensorType((1, 5, 9, 9), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        builder.emit_func_output(builder.emit(relax.op.nn.max_pool2d(x, (3, 3), padding=(1, 1))))
    module = relax.transform.LegalizeOps()(builder.get())
    (pool,) = (f for f in module.functions.values() if isinstance(f, tvm.tirx.PrimFunc))
    pool = pool.with_attr("global_symbol", "pool")
    ours = emit(SMALL[0], AVX2).with_attr("global_symbol", "ours")
    assert EMITTED in ours.attrs
    assert EMITTED not in pool.attrs
    mixed = lowered(tvm.IRModule({"pool": pool, "ours": ours}), PIPELINE)
    alone = lowered(tvm.IRModule({"pool": pool}), "default")
    assert {var.name_hint for var in mixed.functions} == {"pool", "ours"}
    tvm.ir.assert_structural_equal(mixed["pool"], alone["pool"], map_free_vars=True)
