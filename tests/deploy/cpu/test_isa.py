"""The register tiles, and that every kernel compiles for an instruction set we cannot run."""

import pytest
import tvm

from deploy.cpu.isa import ISAS, NEON, best_tile
from deploy.cpu.kernels import MODULES, conv_int8, conv_winograd_int8, emit, module_of
from deploy.cpu.machine_code import compile_kernels
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
)
from tests.deploy.devices import test_neon

EACH = [
    Convert("pack", 16, 8, 20),
    Convert("unpack", 16, 8, 20),
    Depthwise(16, 8, 20),
    Labels(19, 4, 8, 32, 64),
    Logits(19, 4, 8, 32, 64),
    GlobalPool(16, 64, 8, 8, "sigmoid"),
    InvertedResidual(16, 96, 16, 16, 32, residual=True),
    InvertedResidual(16, 96, 16, 16, 32, dilation=4),
    InvertedResidual(16, 16, 8, 16, 32, expand=False),
    LocalGlobal(16, 64, 32, 8, 16, 4, 8),
    Pointwise(16, 96, 16, 16, "relu6"),
    Resize(16, 8, 8, 4, 4),
    StemBlock(16, 8, 32, 64),
    StemPair(StemBlock(16, 8, 32, 64), InvertedResidual(8, 48, 16, 16, 32, stride=2)),
    Stem(16, 32, 64),
    Pointwise(16, 64, 8, 16, add="low", low_height=4, low_width=8),
    Conv((3,), 16, 16, 32, (7, 7), (2, 2), pad=(3, 3, 3, 3), source="uint8_nhwc"),
    Conv((16, 32), 16, 16, 32, then=("add", "relu")),
    Conv((16,), 32, 16, 32, (3, 3), pad=(1, 1, 1, 1), then=("swish",)),
    Conv((16,), 16, 16, 32, (3, 3), (1, 1), (9, 9), (9, 9, 9, 9)),
    Conv((16,), 16, 16, 32, (7, 7), pad=(3, 3, 3, 3), groups=16, then=("gelu",)),
    Conv((16,), 32, 16, 32, (3, 3), pad=(1, 1, 1, 1), groups=16),
    Pool(16, 16, 32, (3, 3), (2, 2), pad=(1, 1, 1, 1)),
    Resample(16, 8, 16, 16, 32, (2, 2), ("add",)),
    Unpool(16, 8, 16, 2),
    AcrossChannels(20, 8, 16, "mean"),
    Concat((16, 20), 8, 16),
    ChannelSlice(32, 8, 16, 20, 4),
    Elementwise(20, 8, 16, ("mul_pixel", "hsigmoid", "prelu")),
    ChannelNorm(20, 8, 16, ("scale",)),
    Attention(2, 16, 16, 8, 16, 4, 8),
    Product(2, 128, 16, 32, (8, 16), (4, 4)),
    GlobalMean(20, 8, 16),
    ArgMax(19, 8, 16, 16, 32, (2, 2)),
    Masks(3, 8, 16, 16, 32, (2, 2)),
]


@pytest.mark.parametrize("isa", ISAS.values(), ids=ISAS)
@pytest.mark.parametrize("pixels", [1, 2, 7, 32, 115, 512])
@pytest.mark.parametrize("blocks", [1, 2, 3, 5, 7, 20])
def test_tile_fits_the_registers(isa, pixels, blocks):
    tile = best_tile(isa, pixels, blocks)
    assert tile.px * tile.ob + tile.ob + 1 <= isa.registers
    assert 1 <= tile.px <= pixels
    assert 1 <= tile.ob <= blocks


def test_no_kernel_is_left_out():
    assert {type(op) for op in EACH} == set(MODULES) == {type(op) for op in test_neon.TESTED}
    # Of bytes alone: kernels.test_int8_neon runs the first, whose work the second leaves to it.
    every = {module for modules in MODULES.values() for module in modules}
    every -= {conv_int8, conv_winograd_int8}
    assert {module_of(op) for op in EACH} == every == {module_of(op) for op in test_neon.TESTED}


def test_compiles_for_neon():
    target = tvm.target.Target(
        {"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a73", "num-cores": 4}
    )
    functions = {f"kernel_{i}": emit(op, NEON, threads=4) for i, op in enumerate(EACH)}
    assembly = compile_kernels(functions, target).mod.inspect_source("asm")
    assert assembly.count("fmla") > 500
