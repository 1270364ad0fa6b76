"""The int8 kernels give the same bytes on ARM's instruction sets, under emulation."""

import pytest

from deploy.cpu.isa import NEON_INT8
from lut.ops import Conv, InvertedResidual, Pointwise
from tests.conditions import QEMU

from . import test_conv_int8, test_head_int8, test_inverted_residual_int8, test_pointwise_int8

CPUS = {"i8mm": "neoverse-v2", "dotprod": "cortex-a76", "neon": "cortex-a73"}
pytestmark = QEMU.mark


@pytest.fixture(params=CPUS)
def on(request):
    return NEON_INT8[request.param], CPUS[request.param]


def test_pointwise(on):
    test_pointwise_int8.check(on, Pointwise(21, 18, 3, 7, "hswish", "map", dtype="int8"))


def test_inverted_residual(on):
    op = InvertedResidual(6, 20, 6, 5, 9, 3, 1, 2, residual=True, act="none", dtype="int8")
    test_inverted_residual_int8.check(on, op)


def test_convolution(on):
    op = Conv((10,), 9, 4, 7, (3, 3), (1, 2), pad=(1, 1, 1, 1), dtype="int8")
    test_conv_int8.check(on, op)


def test_mean(on):
    test_head_int8.test_mean_and_pool_are_exact(on, (5, 7))
