"""Kernels that compute bytes as real numbers: what their steps say, a rounding each."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from deploy.cpu import layout
from deploy.cpu.kernels import module_of
from deploy.grid import Scales
from lut import ops

from . import exact
from .exact import REAL, f32


def emitted(on, op):
    module = module_of(op)
    return module.emit(op, module.default_schedule(op, on[0], 2), on[0])


def setting(op, channels):
    random = exact.Random(np.random.default_rng(5))
    return random, random.bytes(1, channels, op.height, op.width), random.scale(), random.scale()


def floats(on, x):
    return layout.pack_activation(on[0].wide, x)


@pytest.mark.parametrize("on", exact.FEW)
def test_elementwise(on):
    op = ops.Elementwise(20, 5, 9, ("mul_channel", "add", "relu6"), "int8")
    random, x, of_x, of_y = setting(op, 20)
    other, of_other = random.bytes(1, 20, 5, 9), random.scale()
    gate = random.rng.uniform(0, 1, (1, 20, 1, 1)).astype(f32)
    constants = module_of(op).pack(op, on[0], [], Scales((of_x, REAL, of_other), (), of_y))
    arrays = [exact.pack_bytes(on[0], x), floats(on, gate), exact.pack_bytes(on[0], other)]
    y = exact.run(emitted(on, op), on, [*arrays, *constants], op.output)
    value = exact.read(x, of_x, REAL)
    # The product and the sum are one instruction.
    value = exact.fma(value, gate, exact.read(other, of_other, REAL))
    np.testing.assert_array_equal(y, exact.ended(value, of_y, "relu6"))


@pytest.mark.parametrize("on", exact.FEW)
def test_a_value_a_pixel_and_bounds(on):
    op = ops.Elementwise(20, 5, 9, ("sub_pixel", "clip"), "int8")
    random, x, of_x, of_y = setting(op, 20)
    other, of_other = random.bytes(1, 1, 5, 9), random.scale()
    least, most = -random.rng.uniform(0, 1, (2, 20)).astype(f32) * [[1], [-1]]
    scales = Scales((of_x, of_other), (), of_y)
    constants = module_of(op).pack(op, on[0], [least, most], scales)
    arrays = [exact.pack_bytes(on[0], x), exact.pack_bytes(on[0], other)]
    y = exact.run(emitted(on, op), on, [*arrays, *constants], op.output)
    real, pixel = [
        (q.astype(np.float64) - of.zero) * of.scale for q, of in ((x, of_x), (other, of_other))
    ]
    value = np.clip(real - pixel, least[:, None, None], most[:, None, None])
    assert np.abs(y - np.clip(value / of_y.scale + of_y.zero, 0, 255)).max() <= 0.5001


@pytest.mark.parametrize("on", exact.FEW)
def test_a_long_function_is_near(on):
    op = ops.Elementwise(20, 5, 9, ("sigmoid",), "int8")
    _, x, of_x, _ = setting(op, 20)
    constants = module_of(op).pack(op, on[0], [], Scales((of_x,), (), exact.Grid(1 / 255)))
    y = exact.run(emitted(on, op), on, [exact.pack_bytes(on[0], x), *constants], op.output)
    value = (x.astype(np.float64) - of_x.zero) * of_x.scale
    assert np.abs(y / 255 - 1 / (1 + np.exp(-value))).max() <= 0.51 / 255


@pytest.mark.parametrize("on", exact.FEW)
def test_pool(on):
    op = ops.Pool(20, 9, 21, (3, 3), (2, 2), pad=(1, 1, 1, 1), dtype="int8")
    _, x, of_x, _ = setting(op, 20)
    constants = module_of(op).pack(op, on[0], [], Scales((of_x,), (), of_x))
    y = exact.run(emitted(on, op), on, [exact.pack_bytes(on[0], x), *constants], op.output)
    expected = F.max_pool2d(torch.from_numpy(x).double(), 3, 2, 1).numpy()
    np.testing.assert_array_equal(y, expected)  # on the same grid nothing is rounded

    op = ops.Pool(20, 9, 21, (3, 5), (2, 1), pad=(1, 2, 1, 2), reduce="mean", dtype="int8")
    _, x, of_x, of_y = setting(op, 20)
    constants = module_of(op).pack(op, on[0], [], Scales((of_x,), (), of_y))
    y = exact.run(emitted(on, op), on, [exact.pack_bytes(on[0], x), *constants], op.output)
    real = torch.from_numpy((x.astype(np.float64) - of_x.zero) * of_x.scale)
    mean = F.avg_pool2d(real, (3, 5), (2, 1), (1, 2), count_include_pad=False).numpy()
    expected = np.clip(mean / of_y.scale + of_y.zero, 0, 255)
    assert np.abs(y - expected).max() <= 0.5001


@pytest.mark.parametrize("on", exact.FEW)
@pytest.mark.parametrize("begin", [16, 5])
def test_channel_slice(on, begin):
    op = ops.ChannelSlice(40, 3, 5, 17, begin, "int8")
    _, x, of_x, of_y = setting(op, 40)
    constants = module_of(op).pack(op, on[0], Scales((of_x,), (), of_y))
    y = exact.run(emitted(on, op), on, [exact.pack_bytes(on[0], x), *constants], op.output)
    expected = exact.narrow(exact.read(x[:, begin : begin + 17], of_x, of_y))
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("on", exact.FEW)
def test_resample(on):
    op = ops.Resample(20, 5, 7, 9, 13, (2, 2), dtype="int8")
    _, x, of_x, of_y = setting(op, 20)
    corners = [np.linspace(0, n - 1, m) for n, m in ((5, 9), (7, 13))]  # align_corners
    tables = []
    for at, size in zip(corners, (5, 7), strict=True):
        low = np.minimum(at.astype(int), size - 2)
        table = np.zeros((len(at), size), f32)
        table[np.arange(len(at)), low], table[np.arange(len(at)), low + 1] = 1 - at + low, at - low
        tables.append(table)
    constants = module_of(op).pack(op, on[0], *tables, [], Scales((of_x,), (), of_y))
    y = exact.run(emitted(on, op), on, [exact.pack_bytes(on[0], x), *constants], op.output)
    real = (x.astype(np.float64) - of_x.zero) * of_x.scale
    value = np.einsum("yh,xw,nchw->ncyx", *tables, real)
    assert np.abs(y - np.clip(value / of_y.scale + of_y.zero, 0, 255)).max() <= 0.5001


@pytest.mark.parametrize("on", exact.FEW)
def test_depthwise_of_any_window_is_exact(on):
    op = ops.Conv(
        (20,), 20, 9, 21, (3, 4), (2, 1), (1, 2), (1, 0, 0, 3), groups=20, then=("hswish",),
        dtype="int8",
    )  # fmt: skip
    random, x, of_x, of_y = setting(op, 20)
    w, bias, scale = random.weights(20, 1, 3, 4)
    constants = module_of(op).pack(op, on[0], w, bias, [], scales=Scales((of_x,), (scale,), of_y))
    y = exact.run(emitted(on, op), on, [exact.pack_bytes(on[0], x), *constants], op.output)
    q = np.pad(x, ((0, 0), (0, 0), (1, 0), (0, 3)), constant_values=of_x.zero)
    sums = exact.convolve(q, of_x.zero, w, bias, op.stride, 0, op.dilation, 20)
    np.testing.assert_array_equal(y, exact.finish(sums, of_x, scale, of_y, "hswish"))
