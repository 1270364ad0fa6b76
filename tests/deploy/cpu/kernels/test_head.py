"""Resize, upsample + add, the LGE and fuse part, and global pooling against torch in float64."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deploy.cpu import layout
from deploy.cpu.kernels import emit, global_pool, local_global, resize, upsample_add
from deploy.cpu.kernels.global_pool import GlobalPoolSchedule, GlobalPoolSpec
from deploy.cpu.kernels.local_global import LocalGlobalSpec
from deploy.cpu.kernels.resize import ResizeSpec
from deploy.cpu.kernels.upsample_add import UpsampleAddSpec

from .helpers import ISAS, normal, planar, run

SIZE = st.integers(1, 30)


def double(x):
    return torch.from_numpy(x).double()


def conv(x, w, b):
    return F.conv2d(x, double(w)[:, :, None, None], double(b))


def up(x, height, width):
    return F.interpolate(double(x), (height, width), mode="bilinear", align_corners=False)


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=4, deadline=None, derandomize=True)
@given(channels=st.integers(1, 40), h=SIZE, w=SIZE, oh=SIZE, ow=SIZE)
@example(channels=16, h=20, w=30, oh=8, ow=12)  # ratio 0.4
@example(channels=16, h=20, w=30, oh=12, ow=18)  # ratio 0.6
@example(channels=24, h=1, w=1, oh=5, ow=7)
def test_resize(isa, channels, h, w, oh, ow):
    spec = ResizeSpec(channels, h, w, oh, ow)
    x = normal(1, 1, channels, h, w)
    arrays = [layout.pack_activation(isa, x), *resize.pack(spec, isa)]
    y = run(emit(spec, isa), isa, arrays, layout.activation_shape(isa, channels, oh, ow))
    np.testing.assert_allclose(planar(isa, y, channels), up(x, oh, ow).numpy(), atol=5e-6)


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=4, deadline=None, derandomize=True)
@given(cin=st.integers(1, 50), cout=st.integers(1, 70), h=SIZE, w=SIZE, lh=SIZE, lw=SIZE)
def test_upsample_add(isa, cin, cout, h, w, lh, lw):
    spec = UpsampleAddSpec(cin, cout, h, w, lh, lw, "relu6")
    x, low = normal(1, 1, cin, h, w), normal(2, 1, cout, lh, lw)
    weight, bias = normal(3, cout, cin), normal(4, cout)
    arrays = [layout.pack_activation(isa, a) for a in (x, low)]
    arrays += upsample_add.pack(spec, isa, weight, bias)
    y = run(emit(spec, isa), isa, arrays, layout.activation_shape(isa, cout, h, w))
    expected = F.relu6(conv(double(x), weight, bias) + up(low, h, w))
    np.testing.assert_allclose(planar(isa, y, cout), expected.numpy(), atol=2e-5)


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=4, deadline=None, derandomize=True)
@given(
    cin=st.integers(1, 33),
    mid=st.integers(1, 70),
    cout=st.integers(1, 40),
    h=SIZE,
    w=SIZE,
    gate=st.booleans(),
)
@example(cin=16, mid=256, cout=128, h=3, w=100, gate=True)  # more than one segment
def test_local_global(isa, cin, mid, cout, h, w, gate):
    spec = LocalGlobalSpec(cin, mid, cout, h, w, (h + 1) // 2, (w + 1) // 2, gate=gate)
    x, low = normal(1, 1, cin, h, w), normal(2, 1, mid, spec.low_height, spec.low_width)
    factor = normal(3, 1, mid, 1, 1)
    w1, b1, b2 = normal(4, mid, cin), normal(5, mid), normal(7, cout)
    w2 = normal(6, cout, mid) / np.float32(mid**0.5)
    acts = [x, factor, low] if gate else [x, low]
    arrays = [layout.pack_activation(isa, a) for a in acts]
    arrays += local_global.pack(spec, isa, mid=(w1, b1), out=(w2, b2))
    y = run(emit(spec, isa), isa, arrays, layout.activation_shape(isa, cout, h, w))
    middle = conv(double(x), w1, b1) * (double(factor) if gate else 1) + up(low, h, w)
    expected = F.relu6(conv(F.relu6(middle), w2, b2))
    np.testing.assert_allclose(planar(isa, y, cout), expected.numpy(), atol=3e-5)


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=4, deadline=None, derandomize=True)
@given(
    cin=st.integers(1, 40),
    cout=st.integers(1, 200),
    h=SIZE,
    w=SIZE,
    act=st.sampled_from(["none", "sigmoid", "relu6"]),
    tasks=st.sampled_from([1, 3]),
)
def test_global_pool(isa, cin, cout, h, w, act, tasks):
    spec = GlobalPoolSpec(cin, cout, h, w, act)
    x, weight, bias = normal(1, 1, cin, h, w), normal(2, cout, cin), normal(3, cout)
    arrays = [layout.pack_activation(isa, x), *global_pool.pack(spec, isa, weight, bias)]
    func = emit(spec, isa, schedule=GlobalPoolSchedule(min(tasks, h)))
    # A sigmoid turns the padding's zero into a half: nothing reads it, so only the rest counts.
    y = layout.unpack_activation(
        run(func, isa, arrays, layout.activation_shape(isa, cout, 1, 1)), cout
    )
    z = conv(double(x).mean((2, 3), keepdim=True), weight, bias)
    expected = {"none": lambda t: t, "sigmoid": torch.sigmoid, "relu6": F.relu6}[act](z)
    np.testing.assert_allclose(y, expected.numpy(), atol=1e-5)
