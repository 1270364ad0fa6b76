"""Operations on bytes that write float32: class scores."""

import numpy as np
import pytest

from deploy.cpu.kernels import module_of
from deploy.cpu.layout import activation_shape
from deploy.grid import Scales
from lut import ops

from . import exact
from .exact import REAL, f32


def run(on, op, arrays, constants):
    module = module_of(op)
    func = module.emit(op, module.default_schedule(op, on[0], 2), on[0])
    out = np.full(activation_shape(on[0], *op.output), 7, f32)
    packed = [exact.pack_bytes(on[0], a) for a in arrays]
    return exact.unpack(exact.run_raw(func, on, [*packed, *constants], out), op.output[0])


@pytest.mark.parametrize("on", exact.FEW)
@pytest.mark.parametrize("kind", ["pointwise", "conv"])
def test_a_product(on, kind):
    random = exact.Random(np.random.default_rng(1))
    x, (w, bias, scale), of_x = random.bytes(1, 20, 5, 9), random.weights(19, 20), random.scale()
    scales = Scales((of_x,), (scale,), REAL)
    if kind == "pointwise":
        op = ops.Pointwise(20, 19, 5, 9, dtype="int8", wide=True)
        constants = module_of(op).pack(op, on[0], w, bias, scales)
    else:
        op = ops.Conv((20,), 19, 5, 9, dtype="int8", wide=True)
        constants = module_of(op).pack(op, on[0], w[:, :, None, None], bias, [], scales=scales)
    y = run(on, op, [x], constants)
    sums = exact.convolve(x, of_x.zero, w, bias)
    np.testing.assert_array_equal(y, exact.scaled(sums, of_x, scale, REAL, f32(0)))


@pytest.mark.parametrize("on", exact.FEW)
@pytest.mark.parametrize("residual", [False, True])
def test_a_separable_convolution(on, residual):
    op = ops.InvertedResidual(
        20, 20, 20, 5, 9, expand=False, residual=residual, act="none", dtype="int8", wide=True
    )
    random = exact.Random(np.random.default_rng(1))
    x, of_x, mid = random.bytes(1, 20, 5, 9), random.scale(), random.scale()
    depthwise, project = random.weights(20, 1, 3, 3), random.weights(20, 20)
    scales = Scales((of_x,), (depthwise[2], project[2]), REAL, (mid,))
    constants = module_of(op).pack(
        op, on[0], expand=None, depthwise=depthwise[:2], project=project[:2], scales=scales
    )
    y = run(on, op, [x], constants)
    sums = exact.convolve(x, of_x.zero, *depthwise[:2], 1, 1, 1, 20)
    q = exact.finish(sums, of_x, depthwise[2], mid, "none")
    sums = exact.convolve(q, mid.zero, *project[:2])
    start = exact.read(x, of_x, REAL) if residual else f32(0)
    np.testing.assert_array_equal(y, exact.scaled(sums, mid, project[2], REAL, start))
