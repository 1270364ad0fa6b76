import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deploy.cpu import int16
from deploy.cpu.isa import AVX512_INT8, NEON_INT8, Tile
from deploy.cpu.kernels import conv_int8, conv_winograd_int8, module_of
from deploy.cpu.kernels.conv_winograd import ConvWinogradSchedule
from deploy.grid import Scales
from lut.ops import Conv

from . import exact, test_conv_int8

SAME = {"kernel": (3, 3), "pad": (1, 1, 1, 1), "dtype": "int8"}


@st.composite
def operations(draw):
    return Conv(
        (draw(st.sampled_from([17, 32, 40])),),
        draw(st.sampled_from([16, 24, 40])),
        draw(st.integers(6, 14)),
        draw(st.integers(6, 30)),
        (3, 3),
        pad=draw(st.sampled_from([(0, 0, 0, 0), (1, 1, 1, 1), (2, 0, 1, 3)])),
        then=draw(st.sampled_from([(), ("add",), ("hswish",), ("add_channel", "relu6")])),
        dtype="int8",
    )


@pytest.mark.parametrize("on", exact.ISAS)
@settings(max_examples=3, deadline=None, derandomize=True)
@given(op=operations(), seed=st.integers(0, 99))
@example(Conv((64,), 32, 9, 33, then=("add",), **SAME), 1)
def test_is_exact(on, op, seed):
    test_conv_int8.check(on, op, seed, kernel=conv_winograd_int8)


@pytest.mark.parametrize("by_point", [False, True])
def test_every_schedule_is_exact(by_point):
    schedule = ConvWinogradSchedule(2, 3, Tile(4, 2), 2, by_point)
    op = Conv((36,), 64, 13, 18, **SAME)
    test_conv_int8.check(exact.FEW[-1].values[0], op, 1, schedule, conv_winograd_int8)


@pytest.mark.parametrize("corner", [0, 255])
@pytest.mark.parametrize("weight", [-127, 127])
def test_the_largest_sums_are_exact(corner, weight):
    """All bytes and weights at their ends, where sums of products run over 32 bits."""
    isa, cpu = exact.FEW[-1].values[0]
    op = Conv((1024,), 16, 4, 4, **SAME)
    x = np.full((1, 1024, 4, 4), corner, np.uint8)
    x[:, :, 1::2, 1:] = 255 - corner
    w = np.full((16, 1024, 3, 3), weight, np.int8)
    w[8:, :, :, 1] *= -1
    bias, scale = np.arange(16, dtype=np.int32), np.full(16, 2**-24, np.float32)
    of_x, of_y = exact.Grid(1.0, 128), exact.Grid(0.25, 100)
    scales = Scales((of_x,), (scale,), of_y)
    constants = conv_winograd_int8.pack(op, isa, w, bias, [], scales=scales)
    func = conv_winograd_int8.emit(op, conv_winograd_int8.default_schedule(op, isa, 2), isa)
    y = exact.run(func, (isa, cpu), [exact.pack_bytes(isa, x), *constants], op.output)
    sums = test_conv_int8.sums_of(op, x, of_x.zero, w, bias)
    np.testing.assert_array_equal(y, exact.finish(sums, of_x, scale, of_y, "none"))


def test_which_convolutions_are_filtered():
    chosen = {channels: module_of(Conv((channels,), channels, 64, 128, **SAME))
              for channels in (16, 64, 256)}  # fmt: skip
    assert chosen == {16: conv_int8, 64: conv_winograd_int8, 256: conv_winograd_int8}
    # Weights of 19 MB for eight tiles, strides and dilations are tap by tap.
    assert module_of(Conv((512,), 512, 8, 16, **SAME)) is conv_int8
    assert module_of(Conv((64,), 64, 64, 128, stride=(2, 2), **SAME)) is conv_int8
    assert module_of(Conv((64,), 64, 64, 128, dilation=(2, 2), **SAME)) is conv_int8
    op = Conv((128,), 128, 32, 64, **SAME)
    assert 4 * conv_winograd_int8.products(op) == op.macs


def test_arm_sums_bytes_tap_by_tap():
    op = Conv((64,), 64, 32, 64, **SAME)
    for isa in NEON_INT8.values():
        rule = conv_winograd_int8.default_schedule(op, isa)
        assert isinstance(rule, conv_int8.ConvInt8Schedule)
    rule = conv_winograd_int8.default_schedule(op, AVX512_INT8["avx512vnni"])
    assert isinstance(rule, ConvWinogradSchedule)


def test_weights_are_whole():
    packed = int16.Int16().pack_weights(np.float32([[6223], [-6223], [1]]))
    assert packed.dtype == np.int16
    assert packed.tolist() == [[6223, -6223], [1, 0]]
