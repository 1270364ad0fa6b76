"""The short list of passes against TVM's long one, on a small kernel of every kind."""

import pytest
import tvm

from deploy.cpu.isa import AVX2, AVX2_INT8, AVX512, AVX512_INT8
from deploy.cpu.kernels import MODULES, emit, module_of
from deploy.cpu.lowering import PIPELINE
from deploy.ir import EMITTED
from lut.ops import (
    AcrossChannels,
    ArgMax,
    Attention,
    ChannelNorm,
    ChannelSlice,
    Concat,
    Conv,
    Convert,
    Depthwise,
    Elementwise,
    GlobalMean,
    GlobalPool,
    InvertedResidual,
    Labels,
    LocalGlobal,
    Logits,
    Masks,
    Pointwise,
    Pool,
    Product,
    Resample,
    Resize,
    Stem,
    StemBlock,
    StemPair,
    Unpool,
    dtype_of,
)
from tests.deploy.cpu.kernels import helpers

SMALL = (  # no tile divides these sizes
    Convert("pack", 5, 3, 7),
    Convert("unpack", 5, 3, 7),
    Depthwise(9, 7, 11, 5, 2),
    Labels(11, 5, 7, 19, 23),
    Logits(11, 5, 7, 20, 32),
    GlobalPool(12, 5, 7, 9),
    InvertedResidual(5, 19, 6, 9, 13),
    InvertedResidual(9, 27, 9, 7, 11, 5, 1, 2, residual=True),
    LocalGlobal(9, 5, 11, 9, 13, 5, 7),
    Pointwise(9, 11, 5, 7, "relu6"),
    Resize(9, 5, 7, 8, 9),
    Stem(9, 18, 26),
    StemBlock(9, 5, 18, 26),
    StemPair(StemBlock(9, 5, 18, 26), InvertedResidual(5, 19, 6, 9, 13)),
    Pointwise(9, 11, 8, 10, "relu6", "low", low_height=4, low_width=5),
    Conv((9, 5), 11, 7, 13, (3, 5), (2, 1), pad=(1, 2, 0, 1), then=("add", "prelu")),
    Conv((17,), 19, 7, 13, (3, 3), pad=(1, 1, 1, 1), then=("mul_channel",)),
    Conv((17,), 19, 7, 13, (3, 3), (1, 1), (4, 4), (4, 4, 4, 4), then=("relu",)),
    Conv((9,), 9, 7, 13, (5, 3), pad=(2, 1, 2, 1), groups=9, then=("gelu",)),
    Conv((5,), 15, 7, 13, (3, 3), pad=(1, 1, 1, 1), groups=5),
    Pool(9, 7, 13, (3, 2), (2, 3), pad=(1, 0, 1, 1), reduce="mean"),
    Resample(9, 5, 7, 8, 15, (2, 3), ("scale",)),
    Unpool(9, 6, 9, 3),
    AcrossChannels(9, 5, 7, "max"),
    Concat((9, 5, 17), 5, 7),
    ChannelSlice(19, 5, 7, 11, 3),
    Elementwise(9, 5, 7, ("mul_pixel", "swish", "prelu")),
    ChannelNorm(9, 5, 7, ("scale",)),
    Attention(2, 5, 9, 3, 5, 2, 7),
    Product(2, 15, 5, 9, (3, 5), (1, 5)),
    GlobalMean(9, 5, 7),
    ArgMax(11, 5, 7, 9, 13, (2, 2)),
    Masks(3, 5, 7, 5, 7),
    Conv((19,), 17, 5, 7, (3, 3), pad=(1, 1, 1, 1), dtype="int8"),
    Conv((64,), 63, 33, 35, (3, 3), pad=(1, 1, 1, 1), dtype="int8"),
)
# Of TVM's list the one pass that would change a buffer; ours are as large as they shall be.
COMPACTION = "s_tir.CompactBufferAllocation"


def machine_code(function, target, pipeline, path):
    tvm.tirx.build(tvm.IRModule({"k": function}), target, pipeline).write_to_file(str(path))
    return path.read_bytes()


def test_every_kind_is_here():
    assert {type(op) for op in SMALL} == set(MODULES)
    every = {module for modules in MODULES.values() for module in modules}
    assert {module_of(op) for op in SMALL} == every


@pytest.mark.parametrize(("isa", "threads"), [(AVX2, 2), (AVX512, 1)], ids=["avx2", "avx512"])
@pytest.mark.parametrize("op", SMALL, ids=lambda op: type(op).__name__)
def test_the_passes_left_out_do_nothing(op, isa, threads, tmp_path):
    if dtype_of(op) == "int8":
        isa = {AVX2: AVX2_INT8["avx2"], AVX512: AVX512_INT8["avx512bw"]}[isa]
    function = emit(op, isa, threads=threads).with_attr("global_symbol", "k")
    assert EMITTED in function.attrs
    target = helpers.target(isa)
    ours = machine_code(function, target, PIPELINE, tmp_path / "ours.o")
    with tvm.transform.PassContext(disabled_pass=[COMPACTION]):
        theirs = machine_code(function, target, "default", tmp_path / "theirs.o")
    assert ours == theirs
