import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deploy.cpu import layout
from deploy.cpu.isa import AVX2, AVX512, NEON
from deploy.cpu.kernels import emit
from deploy.cpu.kernels import inverted_residual as kernel
from lut.ops import InvertedResidual

from .helpers import ACTIVATIONS, ISAS, activate, normal, planar, run, unpack_activation


@st.composite
def operations(draw):
    cin = draw(st.sampled_from([3, 8, 11, 16, 24, 32]))
    expansion = draw(st.sampled_from([1, 3, 6]))
    stride = draw(st.sampled_from([1, 1, 2]))
    residual = stride == 1 and draw(st.booleans())
    return InvertedResidual(
        cin,
        cin * expansion,
        cin if residual else draw(st.sampled_from([5, 8, 16, 24, 40])),
        height=draw(st.integers(1, 24)),
        width=draw(st.integers(1, 45)),
        kernel=draw(st.sampled_from([3, 5, 7])),
        stride=stride,
        dilation=draw(st.sampled_from([1, 2, 4])),
        expand=expansion > 1,
        residual=residual,
        act=draw(ACTIVATIONS),
    )


def weights(op):
    def pair(seed, *shape):
        fan_in = np.prod(shape[1:]) ** 0.5
        return normal(seed, *shape) / np.float32(fan_in), normal(seed + 1, shape[0])

    return {
        "expand": pair(1, op.hidden, op.cin) if op.expand else None,
        "depthwise": pair(3, op.hidden, 1, op.kernel, op.kernel),
        "project": pair(5, op.cout, op.hidden),
    }


def reference(op, x, expand, depthwise, project):

    def conv(h, pair, *geometry):
        w, b = (torch.from_numpy(a).double() for a in pair)
        return F.conv2d(h, w if w.ndim == 4 else w[:, :, None, None], b, *geometry)

    h = start = torch.from_numpy(x).double()
    if expand:
        h = activate(conv(h, expand), op.act)
    pad = op.dilation * (op.kernel // 2)
    h = activate(conv(h, depthwise, op.stride, pad, op.dilation, op.hidden), op.act)
    h = conv(h, project)
    return (h + start if op.residual else h).numpy()


def check(isa, op, schedule=None, threads=2):
    x, constants = normal(9, 1, op.cin, op.height, op.width), weights(op)
    arrays = [layout.pack_activation(isa, x), *kernel.pack(op, isa, **constants)]
    shape = layout.activation_shape(isa, *op.output)
    y = run(emit(op, isa, schedule=schedule, threads=threads), isa, arrays, shape)
    expected = reference(op, x, **constants)
    np.testing.assert_allclose(planar(isa, y, op.cout), expected, atol=3e-5)


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(op=operations(), threads=st.sampled_from([1, 2, 3]))
@example(op=InvertedResidual(8, 48, 16, 7, 1, residual=False), threads=2)
@example(op=InvertedResidual(8, 48, 8, 1, 9, 7, 1, 4, residual=True), threads=2)
@example(op=InvertedResidual(8, 24, 8, 9, 13, act="hswish", residual=True), threads=2)
def test_matches_torch(isa, op, threads):
    check(isa, op, threads=threads)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("mode", ["rows", "hid"])
@pytest.mark.parametrize("strip", [11, 30])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 1), (1, 4)])
def test_both_modes_and_any_strip_give_the_same(isa, mode, strip, stride, dilation):
    residual = stride == 1
    op = InvertedResidual(16, 96, 16, 13, 30, 5, stride, dilation, residual=residual)
    strip = min(strip, op.output[2])
    schedule = kernel.default_schedule(op, isa, 2)
    schedule = dataclasses.replace(schedule, mode=mode, strip=strip, chunk=2, prefetch=8, tasks=3)
    check(isa, op, schedule)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("height", "dilation", "phases"), [(13, 4, 2), (3, 4, 4), (9, 2, 2)])
@pytest.mark.parametrize("tasks", [1, 3])
def test_classes_of_rows_give_the_same(isa, height, dilation, phases, tasks):
    op = InvertedResidual(16, 96, 16, height, 10, 5, 1, dilation, residual=True)
    schedule = kernel.default_schedule(op, isa, 2)
    schedule = dataclasses.replace(schedule, mode="rows", chunk=2, phases=phases, tasks=tasks)
    check(isa, op, schedule)


@pytest.mark.parametrize("isa", ISAS)
def test_strips_mean_nothing_without_an_expansion(isa):
    op = InvertedResidual(16, 16, 8, 13, 30, expand=False)
    check(isa, op, dataclasses.replace(kernel.default_schedule(op, isa, 2), strip=11))


def test_classes_of_rows_must_fit_the_window():
    op = InvertedResidual(16, 96, 16, 12, 10, dilation=2)
    schedule = kernel.default_schedule(op, AVX512, 2)
    with pytest.raises(ValueError, match="4 phases"):
        emit(op, AVX512, schedule=dataclasses.replace(schedule, phases=4))


def test_classes_of_rows_need_an_expansion():
    op = InvertedResidual(16, 16, 16, 12, 10, dilation=2, expand=False)
    schedule = dataclasses.replace(kernel.default_schedule(op, AVX512, 2), mode="rows", phases=2)
    with pytest.raises(ValueError, match=r"2 phases of rows, but .* has no expansion"):
        emit(op, AVX512, schedule=schedule)


@pytest.mark.parametrize("isa", ISAS)
def test_hidden_channels_that_fill_no_whole_chunk(isa):
    op = InvertedResidual(12, 75, 10, 9, 14)
    schedule = dataclasses.replace(kernel.default_schedule(op, isa, 1), mode="rows", chunk=2)
    check(isa, op, schedule)


@pytest.mark.parametrize("isa", ISAS)
def test_non_finite_input_stays_where_the_window_reaches(isa):
    op = InvertedResidual(8, 48, 8, 9, 12, residual=True)
    x, constants = normal(9, 1, 8, 9, 12), weights(op)
    x[0, 3, 4, 5], x[0, 1, 0, 11] = np.nan, np.inf
    arrays = [layout.pack_activation(isa, x), *kernel.pack(op, isa, **constants)]
    shape = layout.activation_shape(isa, 8, 9, 12)
    # Padding channels may turn NaN (0 * inf); nothing reads them.
    y = unpack_activation(run(emit(op, isa), isa, arrays, shape), 8)
    expected = reference(op, x, **constants)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(expected))
    np.testing.assert_allclose(y, expected, atol=3e-5)


def test_rule():
    isa = kernel.Isa("any", 8, 16, 2, 2, 4, 32 << 10, 512 << 10)
    tall = InvertedResidual(16, 96, 16, 128, 256)
    flat = InvertedResidual(80, 480, 80, 8, 16, dilation=4)
    assert kernel.default_schedule(tall, isa, 2).mode == "rows"
    assert kernel.default_schedule(flat, isa, 2).mode == "hid"
    assert kernel.default_schedule(flat, isa, 1).mode == "rows"  # one thread has no halo
    # The chunk of mode hid divides the blocks and leaves every thread the same number.
    chunk = kernel.default_schedule(flat, isa, 2).chunk
    assert (480 // 8) % (2 * chunk) == 0


def test_rule_for_dilated_blocks():
    def schedule(threads, **changes):
        block = InvertedResidual(32, 192, 32, 16, 32, dilation=2, residual=True)
        return kernel.default_schedule(dataclasses.replace(block, **changes), AVX512, threads)

    two = schedule(2)
    assert (two.mode, two.phases, two.tasks, two.chunk) == ("rows", 2, 1, 192 // 16)
    assert schedule(2, dilation=4).phases == 4  # two classes a thread
    assert schedule(3, dilation=4).phases == 1
    assert schedule(1).phases == 1
    assert schedule(2, height=3).phases == 1
    assert schedule(2, cin=320, cout=320, hidden=960).mode == "hid"  # weights fill L2


def test_rule_where_weights_do_not_stay_in_l2():
    wide = InvertedResidual(160, 960, 160, 16, 32, dilation=2, residual=True)
    schedule = kernel.default_schedule(wide, AVX512, 1)
    # Read for every row, the weights would be 39 MB, the maps four times 1 MB.
    assert (schedule.chunk, schedule.strip) == (15, 32)
    # Maps of 18 MB, weights of half a megabyte: all hidden channels at once.
    large = InvertedResidual(304, 256, 256, 64, 128)
    assert kernel.default_schedule(large, AVX512, 1).chunk == 256 // 16


@pytest.mark.parametrize("isa", [AVX2, AVX512, NEON], ids=lambda isa: isa.name)
@given(op=operations(), threads=st.integers(1, 16))
def test_rule_is_always_a_schedule(isa, op, threads):
    schedule = kernel.default_schedule(op, isa, threads)
    assert 1 <= schedule.strip <= op.output[2]
    assert 1 <= schedule.tasks <= threads
    if schedule.mode == "hid":
        assert isa.blocks(op.hidden) % schedule.chunk == 0
