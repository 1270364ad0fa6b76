"""Neither convolutions nor windows: resampling, concatenations, steps alone, unpooling."""

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from deploy.cpu import layout
from deploy.cpu.kernels import emit, module_of
from lut.ops import AcrossChannels, ChannelSlice, Concat, Elementwise, GlobalMean, Resample, Unpool

from .helpers import ISAS, normal, run, unpack_activation
from .steps import THEN, Given

SIZES = st.integers(1, 20)


def matrix(seed, out, size, taps):
    """Each row has `taps` neighbouring weights, one tap the weight 1."""
    random = np.random.default_rng(seed)
    rows = np.zeros((out, size), np.float32)
    for row, first in zip(rows, random.integers(0, size - taps + 1, out), strict=True):
        row[first : first + taps] = random.uniform(0.1, 1, taps) if taps > 1 else 1
    return rows


def filled(isa, x, channels):
    """A map whose channels of padding hold anything."""
    packed = layout.pack_activation(isa, x)
    lanes = np.arange(packed.shape[1] * isa.lanes).reshape(-1, 1, 1, isa.lanes) >= channels
    return np.where(lanes, np.float32(1e6), packed)


def calculate(op, isa, maps, constants=()):
    packed = [filled(isa, x, x.shape[1]) for x in maps]
    shape = layout.activation_shape(isa, *op.output)
    return unpack_activation(run(emit(op, isa), isa, [*packed, *constants], shape), op.output[0])


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    channels=st.integers(1, 70), sizes=st.tuples(SIZES, SIZES, SIZES, SIZES),
    taps=st.tuples(st.integers(1, 6), st.integers(1, 6)), then=THEN,
)  # fmt: skip
@example(channels=33, sizes=(5, 7, 10, 14), taps=(2, 2), then=("add", "relu"))
@example(channels=64, sizes=(20, 20, 1, 3), taps=(20, 9), then=())
@example(channels=20, sizes=(6, 9, 12, 18), taps=(1, 1), then=())
def test_resample_is_two_products(isa, channels, sizes, taps, then):
    height, width, *out = sizes
    assume(taps[0] <= height and taps[1] <= width)
    op = Resample(channels, height, width, *out, taps, then)
    rows, columns = matrix(1, out[0], height, taps[0]), matrix(2, out[1], width, taps[1])
    x, steps = normal(3, 1, channels, height, width), Given(then, op.output)
    constants = module_of(op).pack(op, isa, rows, columns, steps.vectors)
    y = calculate(op, isa, [x, *steps.maps], constants)
    value = rows.astype(np.float64) @ x @ columns.T
    np.testing.assert_allclose(y, steps.apply(torch.from_numpy(value)), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=6, deadline=None, derandomize=True)
@given(channels=st.integers(1, 40), height=SIZES, width=SIZES, then=THEN)
@example(channels=20, height=7, width=9, then=("add", "relu"))
@example(channels=20, height=1, width=1, then=("hsigmoid",))
@example(channels=17, height=30, width=40, then=("mul_pixel", "swish", "scale", "prelu"))
@example(channels=17, height=5, width=9, then=("elu", "mish", "softplus", "sub_pixel", "clip"))
@example(channels=40, height=5, width=9, then=("clip", "add_pixel"))
def test_steps_alone(isa, channels, height, width, then):
    assume(then)
    op = Elementwise(channels, height, width, then)
    x, steps = normal(3, 1, channels, height, width), Given(then, op.output)
    y = calculate(op, isa, [x, *steps.maps], module_of(op).pack(op, isa, steps.vectors))
    expected = steps.apply(torch.from_numpy(x).double())
    np.testing.assert_allclose(y, expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=6, deadline=None, derandomize=True)
@given(cin=st.lists(st.integers(1, 40), min_size=1, max_size=5), height=SIZES, width=SIZES)
@example(cin=[16, 32, 16], height=3, width=5)
@example(cin=[3, 13, 1, 60, 1], height=2, width=3)
def test_concatenation(isa, cin, height, width):
    op = Concat(tuple(cin), height, width)
    maps = [normal(i, 1, channels, height, width) for i, channels in enumerate(cin)]
    assert (calculate(op, isa, maps) == np.concatenate(maps, 1)).all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    ("channels", "count", "begin"),
    [(64, 32, 16), (64, 30, 32), (64, 37, 13), (7, 3, 4), (40, 40, 0)],
)
def test_slice_of_channels(isa, channels, count, begin):
    x = normal(1, 1, channels, 3, 5)
    got = calculate(ChannelSlice(channels, 3, 5, count, begin), isa, [x])
    assert (got == x[:, begin : begin + count]).all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("reduce", ["max", "mean", "sum"])
@pytest.mark.parametrize("size", [(1, 3, 5), (16, 1, 1), (37, 4, 7)])
def test_across_channels(isa, reduce, size):
    x = normal(1, 1, *size)
    y = calculate(AcrossChannels(*size, reduce), isa, [x])
    expected = getattr(np, reduce)(x.astype(np.float64), axis=1, keepdims=True)
    np.testing.assert_allclose(y, expected, atol=1e-5)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("size", [(1, 3, 5), (37, 1, 1), (40, 70, 67)])
def test_global_mean(isa, size):
    x = normal(1, 1, *size)
    y = calculate(GlobalMean(*size), isa, [x])
    np.testing.assert_allclose(y, x.astype(np.float64).mean((2, 3), keepdims=True), atol=1e-5)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("channels", "k"), [(5, 2), (33, 2), (16, 3)])
def test_unpooling_gives_the_first_of_equal_ones(isa, channels, k):
    rows, columns = 3, 5
    # Many are equal, so that the first one has to win.
    x = np.random.default_rng(1).integers(0, 3, (1, channels, rows * k, columns * k))
    x, updates = x.astype(np.float32), normal(2, 1, channels, rows, columns)
    windows = x.reshape(1, channels, rows, k, columns, k).transpose(0, 1, 2, 4, 3, 5)
    windows = windows.reshape(1, channels, rows, columns, k * k)
    placed = np.zeros_like(windows)
    np.put_along_axis(placed, windows.argmax(-1)[..., None], updates[..., None], -1)
    expected = placed.reshape(1, channels, rows, columns, k, k).transpose(0, 1, 2, 4, 3, 5)
    op = Unpool(channels, rows * k, columns * k, k)
    y = calculate(op, isa, [x, windows.max(-1), updates])
    assert (y == expected.reshape(x.shape)).all()
