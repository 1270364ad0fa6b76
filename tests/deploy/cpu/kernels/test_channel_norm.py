import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deploy.cpu import layout
from deploy.cpu.kernels import channel_norm, emit
from deploy.cpu.kernels.channel_norm import ChannelNormSchedule
from lut.ops import ChannelNorm

from .helpers import ISAS, normal, run, unpack_activation

OPERATIONS = st.builds(ChannelNorm, st.integers(1, 70), st.integers(1, 9), st.integers(1, 40))


def reference(x, epsilon, factor, shift):
    x = x.astype(np.float64)
    centred = x - x.mean(1, keepdims=True)
    y = centred / np.sqrt((centred**2).mean(1, keepdims=True) + epsilon)
    return y * factor[:, None, None] + shift[:, None, None]


def outcome(isa, op, x, steps=(), schedule=None, epsilon=1e-5):
    packed = layout.pack_activation(isa, x)
    # Channels of padding hold whatever an earlier operator left there.
    packed.reshape(-1, isa.blocks(op.channels), op.height * op.width, isa.lanes)[
        :, -1, :, op.channels % isa.lanes or isa.lanes :
    ] = np.nan
    y = run(
        emit(op, isa, schedule=schedule), isa,
        [packed, *channel_norm.pack(op, isa, epsilon, list(steps))],
        layout.activation_shape(isa, *op.output),
    )  # fmt: skip
    return unpack_activation(y, op.channels)


def check(isa, op, schedule=None):
    x = normal(1, 1, op.channels, op.height, op.width) * np.float32(3) + np.float32(7)
    factor, shift = normal(2, op.channels), normal(3, op.channels)
    scaled = ChannelNorm(op.channels, op.height, op.width, ("scale",))
    y = outcome(isa, scaled, x, (factor, shift), schedule)
    np.testing.assert_allclose(y, reference(x, 1e-5, factor, shift), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(op=OPERATIONS)
@example(op=ChannelNorm(32, 64, 128))
def test_matches_numpy(isa, op):
    check(isa, op)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("schedule", [ChannelNormSchedule(1, 3), ChannelNormSchedule(50, 1)])
def test_any_schedule_gives_the_same(isa, schedule):
    check(isa, ChannelNorm(20, 5, 7), schedule)


@pytest.mark.parametrize("isa", ISAS)
def test_equal_channels_are_zero(isa):
    """And a pixel that is not a number stays so, alone."""
    op = ChannelNorm(12, 2, 2)
    x = np.ones((1, 12, 2, 2), np.float32)
    x[0, 3, 0, 1] = np.nan
    y = outcome(isa, op, x)[0]
    assert np.isnan(y[:, 0, 1]).all()
    assert (y[:, 0, 0] == 0).all()
    assert (y[:, 1] == 0).all()
