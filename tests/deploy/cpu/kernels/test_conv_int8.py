import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deploy.cpu import layout
from deploy.cpu.kernels import conv_int8 as kernel
from deploy.grid import Scales
from lut.ops import Conv

from . import exact


@st.composite
def operations(draw):
    kernel = draw(st.tuples(st.sampled_from([1, 3, 4]), st.sampled_from([1, 3, 5])))
    groups = draw(st.sampled_from([1, 1, 2]))
    transposed = draw(st.booleans())
    stride = draw(st.tuples(st.sampled_from([1, 2]), st.sampled_from([1, 2])))
    try:
        return Conv(
            (draw(st.sampled_from([12, 16, 32, 40])),),
            draw(st.sampled_from([6, 16, 32, 40])),
            draw(st.integers(2, 12)),
            draw(st.integers(2, 40)),
            kernel,
            (1, 1) if transposed else stride,
            (1, 1) if transposed else draw(st.sampled_from([(1, 1), (1, 2), (3, 2)])),
            draw(st.sampled_from([(0, 0, 0, 0), (1, 1, 1, 1), (2, 1, 0, 3)])),
            (2, 2) if transposed else (1, 1),
            groups,
            then=draw(st.sampled_from([(), (), ("add",), ("hswish",), ("add_channel", "relu6")])),
            dtype="int8",
        )
    except ValueError:  # no output
        return Conv((16,), 16, 5, 7, (3, 3), pad=(1, 1, 1, 1), dtype="int8")


def sums_of(op, q, zero, w, bias):
    x = torch.from_numpy(q.astype(np.float64) - zero)
    height, width = ((n - 1) * s + 1 for n, s in zip(x.shape[2:], op.spread, strict=True))
    spread = torch.zeros(*x.shape[:2], height, width, dtype=torch.float64)
    spread[:, :, :: op.spread[0], :: op.spread[1]] = x
    top, left, bottom, right = op.pad
    x = F.pad(spread, (left, right, top, bottom))
    w = torch.from_numpy(w.astype(np.float64))
    y = F.conv2d(x, w, None, op.stride, 0, op.dilation, op.groups)
    return y.numpy().astype(np.int64) + exact.per_channel(bias)


def check(on, op, seed=1, schedule=None, kernel=kernel):
    isa, _ = on
    random = exact.Random(np.random.default_rng(seed))
    x = random.bytes(1, op.cin[0], op.height, op.width)
    w, bias, scale = random.weights(op.cout, op.cin[0] // op.groups, *op.kernel)
    shapes = {"add": op.output, "add_channel": (op.cout, 1, 1)}
    others, packed, maps = [], [], [random.scale(), random.scale()]
    for step in op.then:
        if step == "add":
            others.append(random.bytes(1, *shapes[step]))
            packed.append(exact.pack_bytes(isa, others[-1]))
            maps.append(random.scale())
        elif step == "add_channel":  # of real numbers
            others.append(random.rng.standard_normal((1, op.cout, 1, 1)).astype(np.float32))
            packed.append(layout.pack_activation(isa.wide, others[-1]))
            maps.append(exact.REAL)
    scales = Scales(tuple(maps[1:]), (scale,), maps[0])
    constants = kernel.pack(op, isa, w, bias, [], scales=scales)
    schedule = schedule or kernel.default_schedule(op, isa, 2)
    arrays = [exact.pack_bytes(isa, x), *packed, *constants]
    y = exact.run(kernel.emit(op, schedule, isa), on, arrays, op.output)

    sums = sums_of(op, x, maps[1].zero, w, bias)
    if op.then in ((), ("add",)):
        add = (others[0], maps[2]) if others else None
        expected = exact.finish(sums, maps[1], scale, maps[0], "none", add)
    else:
        value = exact.scaled(sums, maps[1], scale, exact.REAL, np.float32(0))
        if others:
            value = value + exact.read(others[0], maps[2], exact.REAL)
        expected = exact.ended(value, maps[0], op.then[-1])
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("on", exact.ISAS)
@settings(max_examples=5, deadline=None, derandomize=True)
@given(op=operations(), seed=st.integers(0, 99))
@example(Conv((20,), 40, 9, 33, (3, 3), pad=(1, 1, 1, 1), then=("add",), dtype="int8"), 1)
@example(Conv((64,), 64, 9, 7, dtype="int8"), 1)
@example(Conv((16,), 32, 5, 9, (3, 3), (2, 2), pad=(1, 1, 1, 1), dtype="int8"), 1)
@example(Conv((16,), 16, 5, 9, (4, 4), spread=(2, 2), pad=(2, 2, 2, 2), dtype="int8"), 1)
def test_is_exact(on, op, seed):
    check(on, op, seed)


def test_long_functions_are_near():
    """Their formulas may be fused otherwise than numpy's."""
    on = exact.ISAS[-1].values[0]
    op = Conv((16,), 24, 5, 9, (3, 3), pad=(1, 1, 1, 1), then=("sigmoid",), dtype="int8")
    random = exact.Random(np.random.default_rng(1))
    x, (w, bias, scale) = random.bytes(1, 16, 5, 9), random.weights(24, 16, 3, 3)
    of_x, of_y = random.scale(), exact.Grid(1 / 255, 0)
    constants = kernel.pack(op, on[0], w, bias, [], scales=Scales((of_x,), (scale,), of_y))
    func = kernel.emit(op, kernel.default_schedule(op, on[0], 2), on[0])
    y = exact.run(func, on, [exact.pack_bytes(on[0], x), *constants], op.output)
    value = sums_of(op, x, of_x.zero, w, bias) * exact.per_channel(of_x.scale * scale)
    assert np.abs(y / 255 - 1 / (1 + np.exp(-value))).max() <= 0.51 / 255


@pytest.mark.parametrize("on", exact.FEW)
@pytest.mark.parametrize("source", ["uint8_nhwc", "float32_nchw"])
@pytest.mark.parametrize("width", [9, 50])
def test_of_an_image_is_exact(on, source, width):
    isa, _ = on
    op = Conv((3,), 20, 13, width, (5, 7), (2, 2), pad=(2, 3, 2, 3), source=source, dtype="int8")
    random = exact.Random(np.random.default_rng(3))
    image, (w, bias, scale) = random.bytes(1, 13, width, 3), random.weights(20, 3, 5, 7)
    mean, std = np.array([0.4, 0.45, 0.5]), np.array([0.2, 0.25, 0.3])
    of_x, of_y = exact.Grid(float(np.float32(0.021)), 97), random.scale()
    planes = image.transpose(0, 3, 1, 2).astype(np.float32)
    given = {}
    if source == "uint8_nhwc":
        given = {"normalisation": {"mean": mean, "std": std}}
        factor, shift = 1 / 255 / (std * of_x.scale), of_x.zero - mean / (std * of_x.scale)
        q = exact.narrow(exact.fma(planes, exact.per_channel(factor), exact.per_channel(shift)))
    else:
        image = ((planes / 255 - exact.per_channel(mean)) / exact.per_channel(std)).astype("f4")
        q = exact.narrow(exact.fma(image, 1 / of_x.scale, of_x.zero))
    constants = kernel.pack(op, isa, w, bias, [], **given, scales=Scales((of_x,), (scale,), of_y))
    func = kernel.emit(op, kernel.default_schedule(op, isa, 2), isa)
    y = exact.run(func, on, [image, *constants], op.output)
    expected = exact.finish(sums_of(op, q, of_x.zero, w, bias), of_x, scale, of_y, "none")
    np.testing.assert_array_equal(y, expected)
