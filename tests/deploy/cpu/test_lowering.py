"""The short list of passes against TVM's long one, on a small kernel of every kind."""

import pytest
import tvm

from deploy.cpu.isa import AVX2, AVX512
from deploy.cpu.kernels import MODULES, emit
from deploy.cpu.kernels.convert import ConvertSpec
from deploy.cpu.kernels.depthwise import DepthwiseSpec
from deploy.cpu.kernels.ends import EndSpec
from deploy.cpu.kernels.global_pool import GlobalPoolSpec
from deploy.cpu.kernels.inverted_residual import InvertedResidualSpec
from deploy.cpu.kernels.local_global import LocalGlobalSpec
from deploy.cpu.kernels.pointwise import PointwiseSpec
from deploy.cpu.kernels.resize import ResizeSpec
from deploy.cpu.kernels.stem import StemSpec
from deploy.cpu.kernels.stem_block import StemBlockSpec
from deploy.cpu.kernels.stem_pair import StemPairSpec
from deploy.cpu.kernels.upsample_add import UpsampleAddSpec
from deploy.cpu.lowering import PIPELINE
from deploy.ir import EMITTED
from tests.deploy.cpu.kernels import helpers

SMALL = (  # no tile divides these sizes
    ConvertSpec("pack", 5, 3, 7),
    ConvertSpec("unpack", 5, 3, 7),
    DepthwiseSpec(9, 7, 11, 5, 2),
    EndSpec(11, 5, 7, 19, 23),
    EndSpec(11, 5, 7, 20, 32, "logits"),
    GlobalPoolSpec(12, 5, 7, 9),
    InvertedResidualSpec(5, 19, 6, 9, 13),
    InvertedResidualSpec(9, 27, 9, 7, 11, 5, 1, 2, residual=True),
    LocalGlobalSpec(9, 5, 11, 9, 13, 5, 7),
    PointwiseSpec(9, 11, 5, 7, "relu6"),
    ResizeSpec(9, 5, 7, 8, 9),
    StemSpec(9, 18, 26),
    StemBlockSpec(9, 5, 18, 26),
    StemPairSpec(StemBlockSpec(9, 5, 18, 26), InvertedResidualSpec(5, 19, 6, 9, 13)),
    UpsampleAddSpec(9, 11, 8, 10, 4, 5, "relu6"),
)
# Of TVM's list the one pass that would change a buffer; ours are as large as they shall be.
COMPACTION = "s_tir.CompactBufferAllocation"


def machine_code(function, target, pipeline, path):
    tvm.tirx.build(tvm.IRModule({"k": function}), target, pipeline).write_to_file(str(path))
    return path.read_bytes()


def test_every_kind_is_here():
    assert {type(spec) for spec in SMALL} == set(MODULES)


@pytest.mark.parametrize(("isa", "threads"), [(AVX2, 2), (AVX512, 1)], ids=["avx2", "avx512"])
@pytest.mark.parametrize("spec", SMALL, ids=lambda spec: type(spec).__name__)
def test_the_passes_left_out_do_nothing(spec, isa, threads, tmp_path):
    function = emit(spec, isa, threads=threads).with_attr("global_symbol", "k")
    assert EMITTED in function.attrs
    target = helpers.target(isa)
    ours = machine_code(function, target, PIPELINE, tmp_path / "ours.o")
    with tvm.transform.PassContext(disabled_pass=[COMPACTION]):
        theirs = machine_code(function, target, "default", tmp_path / "theirs.o")
    assert ours == theirs
