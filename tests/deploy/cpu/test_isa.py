"""The register tiles, and that every kernel compiles for an instruction set we cannot run."""

import pytest
import tvm

from deploy.cpu.isa import ISAS, NEON, best_tile
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
from deploy.cpu.machine_code import compile_kernels
from tests.deploy.devices import test_neon

EACH = [
    ConvertSpec("pack", 16, 8, 20),
    ConvertSpec("unpack", 16, 8, 20),
    DepthwiseSpec(16, 8, 20),
    EndSpec(19, 4, 8, 32, 64),
    EndSpec(19, 4, 8, 32, 64, "logits"),
    GlobalPoolSpec(16, 64, 8, 8, "sigmoid"),
    InvertedResidualSpec(16, 96, 16, 16, 32, residual=True),
    InvertedResidualSpec(16, 96, 16, 16, 32, dilation=4),
    InvertedResidualSpec(16, 16, 8, 16, 32, expand=False),
    LocalGlobalSpec(16, 64, 32, 8, 16, 4, 8),
    PointwiseSpec(16, 96, 16, 16, "relu6"),
    ResizeSpec(16, 8, 8, 4, 4),
    StemBlockSpec(16, 8, 32, 64),
    StemPairSpec(StemBlockSpec(16, 8, 32, 64), InvertedResidualSpec(8, 48, 16, 16, 32, stride=2)),
    StemSpec(16, 32, 64),
    UpsampleAddSpec(16, 64, 8, 16, 4, 8),
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
    assert {type(spec) for spec in EACH} == set(MODULES)
    assert set(MODULES) == test_neon.TESTED


def test_compiles_for_neon():
    target = tvm.target.Target(
        {"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a73", "num-cores": 4}
    )
    functions = {f"kernel_{i}": emit(spec, NEON, threads=4) for i, spec in enumerate(EACH)}
    assembly = compile_kernels(functions, target).mod.inspect_source("asm")
    assert assembly.count("fmla") > 500
