"""Depthwise convolutions and pools of any window."""

from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from deploy.cpu import layout
from deploy.cpu.isa import AVX2
from deploy.cpu.kernels import conv_depthwise, conv_multiplied, emit, module_of, pool
from lut.ops import Conv, Pool, Reduction

from .helpers import ISAS, normal, run, unpack_activation
from .steps import THEN, Given

PAIRS = st.tuples(st.integers(1, 5), st.integers(1, 5))
SMALL = st.tuples(st.integers(1, 3), st.integers(1, 3))
SIDES = st.tuples(*[st.integers(0, 4)] * 4)


def conv(channels, height, width, kernel, stride=(1, 1), dilation=(1, 1), pad=(0,) * 4, then=()):
    return Conv(
        (channels,), channels, height, width, kernel, stride, dilation, pad, groups=channels,
        then=then,
    )  # fmt: skip


@st.composite
def windows(draw, build):
    values = [draw(st.integers(2, 40)), draw(st.integers(1, 14)), draw(st.integers(1, 40))]
    try:
        return build(*values, draw(PAIRS), draw(SMALL), draw(SMALL), draw(SIDES))
    except ValueError:
        assume(False)


def calculate(op, isa, inputs, constants, given_steps):
    maps = [*inputs, *given_steps.packed_maps(isa)]
    shape = layout.activation_shape(isa, *op.output)
    return unpack_activation(run(emit(op, isa), isa, [*maps, *constants], shape), op.output[0])


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(op=windows(conv), then=THEN)
@example(op=conv(20, 6, 50, (3, 1), dilation=(16, 1), pad=(16, 0, 16, 0)), then=("prelu",))
@example(op=conv(20, 6, 50, (1, 3), dilation=(1, 16), pad=(0, 16, 0, 16)), then=("add", "prelu"))
@example(op=conv(36, 9, 33, (7, 7), pad=(3, 3, 3, 3)), then=())
@example(op=conv(16, 8, 12, (4, 2), (2, 2), pad=(1, 0, 2, 1)), then=("swish",))
def test_depthwise_matches_torch(isa, op, then):
    op = Conv(**{**vars(op), "then": then})
    assert module_of(op) is conv_depthwise
    check_convolution(isa, op)


def check_convolution(isa, op):
    x, w = normal(1, 1, sum(op.cin), op.height, op.width), normal(2, op.cout, 1, *op.kernel)
    bias, steps = normal(3, op.cout), Given(op.then, op.output)
    constants = module_of(op).pack(op, isa, w, bias, steps.vectors)
    parts = np.split(x, np.cumsum(op.cin)[:-1], axis=1)
    maps = [layout.pack_activation(isa, part) for part in parts]
    y = calculate(op, isa, maps, constants, steps)
    tensors = [torch.from_numpy(a).double() for a in (x, w, bias)]
    top, left, bottom, right = op.pad
    tensors[0] = F.pad(tensors[0], (left, right, top, bottom))
    value = F.conv2d(*tensors, op.stride, 0, op.dilation, op.groups)
    np.testing.assert_allclose(y, steps.apply(value), atol=5e-5, rtol=1e-5)


@pytest.mark.parametrize("isa", ISAS)
def test_depthwise_reads_concatenated_maps(isa):
    op = conv(16 + 48 + 5, 9, 21, (3, 3), (2, 1), pad=(1, 1, 1, 1), then=("add", "relu"))
    check_convolution(isa, Conv(**{**vars(op), "cin": (16, 48, 5)}))


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=5, deadline=None, derandomize=True)
@given(op=windows(conv), times=st.integers(2, 6), then=THEN)
@example(op=conv(16, 12, 40, (3, 3), pad=(1, 1, 1, 1)), times=6, then=("relu",))
@example(op=conv(5, 30, 3, (3, 3), (2, 2), pad=(1, 1, 1, 1)), times=3, then=("add",))
def test_several_channels_of_each_match_torch(isa, op, times, then):
    op = Conv(**{**vars(op), "cout": op.cout * times, "then": then})
    assert module_of(op) is conv_multiplied
    check_convolution(isa, op)


def test_others_than_depthwise_have_another_kernel():
    assert not conv_multiplied.supports(Conv((8,), 8, 5, 5, (3, 3), groups=8))
    assert not conv_depthwise.supports(Conv((8,), 16, 5, 5, (3, 3), groups=8))
    assert not conv_depthwise.supports(Conv((4, 4), 8, 5, 5, (3, 3), groups=8))
    assert not conv_depthwise.supports(Conv((8,), 8, 5, 5, (3, 3), spread=(2, 2), groups=8))


def windowed(x, op, outside):
    """(1, C, rows, columns, taps) of each output's window, with `outside` where no map is."""
    behind = [
        max((n - 1) * s + (k - 1) * d + 1 - size - p, 0)
        for n, s, k, d, size, p in zip(
            op.output[1:], op.stride, op.kernel, op.dilation, x.shape[2:], op.pad[:2], strict=True
        )
    ]
    x = np.pad(x, [(0, 0), (0, 0), *zip(op.pad[:2], behind, strict=True)],
               constant_values=outside)  # fmt: skip
    taps = [
        x[:, :, a * op.dilation[0] :, b * op.dilation[1] :][:, :, :: op.stride[0], :: op.stride[1]][
            :, :, : op.output[1], : op.output[2]
        ]
        for a in range(op.kernel[0])
        for b in range(op.kernel[1])
    ]
    return np.stack(taps, -1)


def pooled(x, op):
    x = x.astype(np.float64)
    if op.reduce == "max":
        return windowed(x, op, -np.inf).max(-1)
    count = windowed(np.ones_like(x), op, float(op.reduce == "mean_padded")).sum(-1)
    return windowed(x, op, 0).sum(-1) / np.maximum(count, 1)


POOLS = windows(lambda *sizes: Pool(*sizes))


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=10, deadline=None, derandomize=True)
@given(op=POOLS, reduce=st.sampled_from(get_args(Reduction)), then=THEN)
@example(op=Pool(20, 17, 33, (3, 3), (2, 2), pad=(1, 1, 1, 1)), reduce="max", then=())
@example(op=Pool(16, 9, 40, (3, 25), (2, 9), pad=(1, 12, 1, 12)), reduce="mean", then=())
@example(op=Pool(16, 9, 40, (9, 40)), reduce="max", then=("relu",))
@example(
    op=Pool(8, 5, 7, (2, 2), (2, 2), pad=(0, 0, 1, 1)), reduce="mean_padded", then=("add", "relu")
)
def test_pools_match_numpy(isa, op, reduce, then):
    op = Pool(**{**vars(op), "reduce": reduce, "then": then})
    reach = [(k - 1) * d for k, d in zip(op.kernel, op.dilation, strict=True)]
    # A window that lies in the padding alone has no largest element.
    assume(all(p <= r for p, r in zip(op.pad, [*reach, *reach], strict=True)))
    x, steps = normal(1, 1, op.channels, op.height, op.width), Given(then, op.output)
    value = pooled(x, op)
    assume(np.isfinite(value).all())
    constants = pool.pack(op, isa, steps.vectors)
    y = calculate(op, isa, [layout.pack_activation(isa, x)], constants, steps)
    np.testing.assert_allclose(y, steps.apply(torch.from_numpy(value)), atol=2e-5, rtol=1e-5)


def test_wide_windows_are_no_long_code():
    op = Pool(16, 64, 128, (64, 128))
    assert pool.default_schedule(op, AVX2).px == 1
