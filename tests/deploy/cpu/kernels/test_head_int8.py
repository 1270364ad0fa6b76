import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.bilinear import axes_of
from deploy.cpu import layout
from deploy.cpu.kernels import (
    concat,
    depthwise,
    global_mean,
    global_pool,
    labels_end,
    local_global,
    module_of,
    resize,
)
from deploy.cpu.scales import REAL
from deploy.grid import Scales
from lut import ops

from . import exact
from .exact import f32

ACTS = st.sampled_from(["none", "none", "relu6", "hswish"])


def emitted(on, op):
    isa, _ = on
    module = module_of(op)
    return module.emit(op, module.default_schedule(op, isa, 2), isa)


def mixed(low, axes):
    """Bilinear, row by row, then column by column, a rounding after the first product and after the
    sum."""
    for axis, number in ((axes[0], 2), (axes[1], 3)):
        index, weight = axis.table()
        shape = [-1 if n == number else 1 for n in range(4)]
        a, b = (np.take(low, index[:, i], number) for i in range(2))
        w0, w1 = (weight[:, i].reshape(shape) for i in range(2))
        low = exact.fma(b, w1, a * w0)
    return low


@pytest.mark.parametrize("on", exact.ISAS)
@settings(max_examples=4, deadline=None, derandomize=True)
@given(
    act=ACTS, channels=st.integers(1, 40), height=st.integers(1, 12), width=st.integers(1, 20),
    low=st.tuples(st.integers(1, 9), st.integers(1, 9)),
)  # fmt: skip
def test_upsample_add_is_exact(on, act, channels, height, width, low):
    op = ops.Pointwise(
        13, channels, height, width, act, "low", low_height=low[0], low_width=low[1], dtype="int8"
    )
    random = exact.Random(np.random.default_rng(3))
    x, below = random.bytes(1, 13, height, width), random.bytes(1, channels, *low)
    maps, (w, bias, scale) = [random.scale() for _ in range(3)], random.weights(channels, 13)
    constants = module_of(op).pack(op, on[0], w, bias, Scales(tuple(maps[:2]), (scale,), maps[2]))
    arrays = [*(exact.pack_bytes(on[0], a) for a in (x, below)), *constants]
    y = exact.run(emitted(on, op), on, arrays, op.output)
    unit = exact.unit_of(act, maps[2])
    start = mixed(exact.read(below, maps[1], unit), axes_of(op))
    sums = exact.convolve(x, maps[0].zero, w, bias)
    np.testing.assert_array_equal(y, exact.finish(sums, maps[0], scale, maps[2], act, start))


@pytest.mark.parametrize("on", exact.FEW)
@pytest.mark.parametrize("gate", [True, False])
@pytest.mark.parametrize("act", ["none", "relu6"])
def test_local_global_is_exact(on, gate, act):
    op = ops.LocalGlobal(16, 40, 24, 6, 11, 3, 5, gate, act, act, "int8")
    random = exact.Random(np.random.default_rng(5))
    x, below = random.bytes(1, 16, 6, 11), random.bytes(1, 40, 3, 5)
    gates = random.rng.uniform(0, 1, (1, 40, 1, 1)).astype(f32)
    layers = [random.weights(40, 16), random.weights(24, 40)]
    of_x, of_low, middle, of_y = (random.scale() for _ in range(4))
    scales = Scales(
        (of_x, exact.REAL, of_low) if gate else (of_x, of_low), tuple(s for *_, s in layers), of_y,
        (middle,),
    )  # fmt: skip
    constants = local_global.pack(op, on[0], mid=layers[0][:2], out=layers[1][:2], scales=scales)
    maps = [exact.pack_bytes(on[0], a) for a in (x, below)]
    if gate:
        maps.insert(1, layout.pack_activation(on[0].wide, gates))
    arrays = [*maps, *constants]
    y = exact.run(emitted(on, op), on, arrays, op.output)

    unit = exact.unit_of(act, middle)
    start = mixed(exact.read(below, of_low, unit), axes_of(op))
    w, bias, scale = layers[0]
    sums = exact.convolve(x, of_x.zero, w, bias)
    if gate:
        value = exact.scaled(sums, of_x, scale, unit, f32(0))
        value = exact.fma(value, exact.read(gates, exact.REAL, exact.REAL), start)
    else:
        value = exact.scaled(sums, of_x, scale, unit, start)
    q = exact.ended(value, middle, act)
    w, bias, scale = layers[1]
    sums = exact.convolve(q, middle.zero, w, bias)
    np.testing.assert_array_equal(y, exact.finish(sums, middle, scale, of_y, act))


@pytest.mark.parametrize("on", exact.FEW)
@pytest.mark.parametrize("size", [(5, 7), (9, 33), (1, 1)])
def test_mean_and_pool_are_exact(on, size):
    random = exact.Random(np.random.default_rng(5))
    x, of_x, of_mean, of_y = random.bytes(1, 20, *size), *(random.scale() for _ in range(3))
    total = x.astype(np.int64).sum((2, 3), keepdims=True).astype(f32)
    ratio = of_x.scale / of_mean.scale
    mean = exact.narrow(
        exact.fma(total, ratio / (size[0] * size[1]), of_mean.zero - of_x.zero * ratio)
    )
    op = ops.GlobalMean(20, *size, dtype="int8")
    constants = global_mean.pack(op, on[0], Scales((of_x,), (), of_mean))
    arrays = [exact.pack_bytes(on[0], x), *constants]
    y = exact.run(emitted(on, op), on, arrays, op.output)
    np.testing.assert_array_equal(y, mean)

    pool, (w, bias, scale) = ops.GlobalPool(20, 37, *size, "hswish", "int8"), random.weights(37, 20)
    scales = Scales((of_x,), (scale,), of_y, (of_mean,))
    arrays = [exact.pack_bytes(on[0], x), *global_pool.pack(pool, on[0], w, bias, scales)]
    y = exact.run(emitted(on, pool), on, arrays, pool.output)
    sums = exact.convolve(mean, of_mean.zero, w, bias)
    np.testing.assert_array_equal(y, exact.finish(sums, of_mean, scale, of_y, "hswish"))


@pytest.mark.parametrize("on", exact.FEW)
@pytest.mark.parametrize("act", ["none", "sigmoid"])
@pytest.mark.parametrize("cin", [20, 150])  # one sum, sums in parts
def test_a_real_pool_is_that_of_its_numbers(on, cin, act):
    """In double; of a channel whose weights are all zero its bias is left."""
    random, size = exact.Random(np.random.default_rng(5)), (9, 33)
    x, of_x = random.bytes(1, cin, *size), random.scale()
    w, _, scale = random.weights(37, cin)
    w[3], bias = 0, np.random.default_rng(6).normal(size=37).astype(f32)
    op = ops.GlobalPool(cin, 37, *size, act, "int8", real=True)
    scales = Scales((of_x,), (scale,), REAL)
    arrays = [exact.pack_bytes(on[0], x), *global_pool.pack(op, on[0], w, bias, scales)]
    assert arrays[2].dtype == np.int8
    out = np.zeros(layout.activation_shape(on[0], *op.output), f32)
    y = exact.unpack(exact.run_raw(emitted(on, op), on, arrays, out), 37)[0, :, 0, 0]
    mean = of_x.scale * (x.astype(np.float64).mean((0, 2, 3)) - of_x.zero)
    real = (w.reshape(37, cin) * scale.astype(np.float64)[:, None]) @ mean + bias
    wanted = 1 / (1 + np.exp(-real)) if act == "sigmoid" else real
    np.testing.assert_allclose(y, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("on", exact.FEW)
def test_resize_is_exact(on):
    op = ops.Resize(20, 5, 7, 9, 17, "int8")
    random = exact.Random(np.random.default_rng(5))
    x, of_x, of_y = random.bytes(1, 20, 5, 7), random.scale(), random.scale()
    arrays = [exact.pack_bytes(on[0], x), *resize.pack(op, on[0], Scales((of_x,), (), of_y))]
    y = exact.run(emitted(on, op), on, arrays, op.output)
    ratio = of_x.scale / of_y.scale
    value = exact.fma(mixed(x.astype(f32), axes_of(op)), ratio, of_y.zero - of_x.zero * ratio)
    np.testing.assert_array_equal(y, exact.narrow(value))


@pytest.mark.parametrize("on", exact.FEW)
def test_concat_is_exact(on):
    op = ops.Concat((20, 16, 9), 3, 5, "int8")
    random = exact.Random(np.random.default_rng(5))
    parts, maps = [random.bytes(1, n, 3, 5) for n in op.cin], [random.scale() for _ in range(4)]
    maps[1] = maps[3]  # as it is
    constants = concat.pack(op, on[0], Scales(tuple(maps[:3]), (), maps[3]))
    arrays = [*(exact.pack_bytes(on[0], part) for part in parts), *constants]
    y = exact.run(emitted(on, op), on, arrays, op.output)
    read = [exact.narrow(exact.read(p, of, maps[3])) for p, of in zip(parts, maps, strict=False)]
    np.testing.assert_array_equal(read[1], parts[1])
    np.testing.assert_array_equal(y, np.concatenate(read, 1))


@pytest.mark.parametrize("on", exact.ISAS)
@settings(max_examples=4, deadline=None, derandomize=True)
@given(
    channels=st.integers(1, 40), height=st.integers(1, 15), width=st.integers(1, 30), act=ACTS,
    kernel=st.sampled_from([3, 5, 7]), stride=st.sampled_from([1, 2]),
    dilation=st.sampled_from([1, 2, 3]),
)  # fmt: skip
def test_depthwise_is_exact(on, channels, height, width, act, kernel, stride, dilation):
    op = ops.Depthwise(channels, height, width, kernel, stride, dilation, act, "int8")
    random = exact.Random(np.random.default_rng(5))
    x, of_x, of_y = random.bytes(1, channels, height, width), random.scale(), random.scale()
    w, bias, scale = random.weights(channels, 1, kernel, kernel)
    constants = depthwise.pack(op, on[0], w, bias, Scales((of_x,), (scale,), of_y))
    arrays = [exact.pack_bytes(on[0], x), *constants]
    y = exact.run(emitted(on, op), on, arrays, op.output)
    pad = dilation * (kernel // 2)
    sums = exact.convolve(x, of_x.zero, w, bias, stride, pad, dilation, channels)
    np.testing.assert_array_equal(y, exact.finish(sums, of_x, scale, of_y, act))


@pytest.mark.parametrize("on", exact.FEW)
@pytest.mark.parametrize("size", [(17, 31), (40, 120)])
def test_labels_are_those_of_the_quanta(on, size):
    op = ops.Labels(19, 5, 7, *size, dtype="int8")
    scores = np.random.default_rng(5).integers(0, 256, (1, 19, 5, 7), dtype=np.uint8)
    arrays = [exact.pack_bytes(on[0], scores), *labels_end.pack(op, on[0])]
    y = exact.run_raw(emitted(on, op), on, arrays, np.full((1, *size), 255, np.uint8))
    value = mixed(scores.astype(f32), axes_of(op))
    best = np.take_along_axis(value, y[None].astype(np.int64), 1)[:, 0]
    np.testing.assert_allclose(best, value.max(1), rtol=1e-6)
