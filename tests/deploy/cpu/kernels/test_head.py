"""Resize, upsample + add, the LGE and fuse part, and global pooling against torch in float64."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deploy.cpu import layout
from deploy.cpu.kernels import emit, global_pool, local_global, resize, upsample_add
from deploy.cpu.kernels.global_pool import GlobalPoolSchedule
from lut.ops import GlobalPool, LocalGlobal, Pointwise, Resize

from .helpers import ACTIVATIONS, ISAS, activate, normal, planar, run, upsample

SIZE = st.integers(1, 30)
USUAL = ("relu6", "relu6")


def double(x):
    return torch.from_numpy(x).double()


def conv(x, w, b):
    return F.conv2d(x, double(w)[:, :, None, None], double(b))


def up(x, height, width):
    return torch.from_numpy(upsample(np.asarray(x), height, width))


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=4, deadline=None, derandomize=True)
@given(channels=st.integers(1, 40), h=SIZE, w=SIZE, oh=SIZE, ow=SIZE)
@example(channels=16, h=20, w=30, oh=8, ow=12)  # ratio 0.4
@example(channels=16, h=20, w=30, oh=12, ow=18)  # ratio 0.6
@example(channels=24, h=1, w=1, oh=5, ow=7)
def test_resize(isa, channels, h, w, oh, ow):
    op = Resize(channels, h, w, oh, ow)
    x = normal(1, 1, channels, h, w)
    arrays = [layout.pack_activation(isa, x), *resize.pack(op, isa)]
    y = run(emit(op, isa), isa, arrays, layout.activation_shape(isa, channels, oh, ow))
    np.testing.assert_allclose(planar(isa, y, channels), up(x, oh, ow).numpy(), atol=5e-6)


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=4, deadline=None, derandomize=True)
@given(
    cin=st.integers(1, 50), cout=st.integers(1, 70), h=SIZE, w=SIZE, lh=SIZE, lw=SIZE,
    act=ACTIVATIONS,
)  # fmt: skip
@example(cin=13, cout=20, h=9, w=13, lh=4, lw=6, act="hswish")
def test_upsample_add(isa, cin, cout, h, w, lh, lw, act):
    op = Pointwise(cin, cout, h, w, act, "low", low_height=lh, low_width=lw)
    x, low = normal(1, 1, cin, h, w), normal(2, 1, cout, lh, lw)
    weight, bias = normal(3, cout, cin), normal(4, cout)
    arrays = [layout.pack_activation(isa, a) for a in (x, low)]
    arrays += upsample_add.pack(op, isa, weight, bias)
    y = run(emit(op, isa), isa, arrays, layout.activation_shape(isa, cout, h, w))
    expected = activate(conv(double(x), weight, bias) + up(low, h, w), act)
    np.testing.assert_allclose(planar(isa, y, cout, act), expected.numpy(), atol=2e-5)


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=4, deadline=None, derandomize=True)
@given(
    cin=st.integers(1, 33),
    mid=st.integers(1, 70),
    cout=st.integers(1, 40),
    h=SIZE,
    w=SIZE,
    gate=st.booleans(),
    acts=st.tuples(*[ACTIVATIONS] * 2),
)
@example(cin=16, mid=256, cout=128, h=3, w=100, gate=True, acts=USUAL)  # more than one segment
@example(cin=13, mid=20, cout=11, h=9, w=13, gate=True, acts=("hswish", "hswish"))
def test_local_global(isa, cin, mid, cout, h, w, gate, acts):
    op = LocalGlobal(cin, mid, cout, h, w, (h + 1) // 2, (w + 1) // 2, gate, *acts)
    x, low = normal(1, 1, cin, h, w), normal(2, 1, mid, op.low_height, op.low_width)
    factor = normal(3, 1, mid, 1, 1)
    w1, b1, b2 = normal(4, mid, cin), normal(5, mid), normal(7, cout)
    w2 = normal(6, cout, mid) / np.float32(mid**0.5)
    acts = [x, factor, low] if gate else [x, low]
    arrays = [layout.pack_activation(isa, a) for a in acts]
    arrays += local_global.pack(op, isa, mid=(w1, b1), out=(w2, b2))
    y = run(emit(op, isa), isa, arrays, layout.activation_shape(isa, cout, h, w))
    middle = conv(double(x), w1, b1) * (double(factor) if gate else 1) + up(low, h, w)
    expected = activate(conv(activate(middle, op.mid_act), w2, b2), op.act)
    np.testing.assert_allclose(planar(isa, y, cout, op.act), expected.numpy(), atol=3e-5)


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=4, deadline=None, derandomize=True)
@given(
    cin=st.integers(1, 40),
    cout=st.integers(1, 200),
    h=SIZE,
    w=SIZE,
    act=ACTIVATIONS,
    tasks=st.sampled_from([1, 3]),
)
@example(cin=13, cout=20, h=9, w=13, act="hswish", tasks=3)
def test_global_pool(isa, cin, cout, h, w, act, tasks):
    op = GlobalPool(cin, cout, h, w, act)
    x, weight, bias = normal(1, 1, cin, h, w), normal(2, cout, cin), normal(3, cout)
    arrays = [layout.pack_activation(isa, x), *global_pool.pack(op, isa, weight, bias)]
    func = emit(op, isa, schedule=GlobalPoolSchedule(min(tasks, h)))
    y = planar(isa, run(func, isa, arrays, layout.activation_shape(isa, cout, 1, 1)), cout, act)
    z = conv(double(x).mean((2, 3), keepdim=True), weight, bias)
    np.testing.assert_allclose(y, activate(z, act).numpy(), atol=1e-5)
