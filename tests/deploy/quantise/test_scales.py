"""8 bits against numpy in double."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.grid import Grid
from deploy.quantise.scales import Range, grid_of, on_grid, quantise_bias, quantise_weights

FINITE = st.floats(-1e6, 1e6, width=32)


@given(FINITE, FINITE)
def test_a_grid_has_zero_and_reaches_both_ends(one, other):
    low, high = min(one, other), max(one, other)
    grid = grid_of(Range(low, high))
    assert 0 <= grid.zero <= 255
    assert grid.scale > 0
    assert grid.scale == np.float32(grid.scale)
    assert on_grid(np.zeros(1, np.float32), grid) == 0
    ends = np.array([low, high], np.float32)
    off = np.abs(on_grid(ends, grid).astype(np.float64) - ends)
    assert (off <= 0.51 * grid.scale + 1e-6 * np.abs(ends)).all()


def test_a_relu_begins_at_zero():
    assert grid_of(Range(0.0, 6.0)) == Grid(float(np.float32(6 / 255)), 0)
    assert grid_of(Range(0.5, 6.0)).zero == 0  # zero is on it, too
    assert grid_of(Range(-3.0, -1.0)).zero == 255


def test_a_constant_map_is_exact_and_one_of_zeros_has_a_scale():
    value = np.full(3, 0.37, np.float32)
    found = on_grid(value, grid_of(Range(0.37, 0.37)))
    np.testing.assert_allclose(found, value, rtol=1e-6)
    assert grid_of(Range(0.0, 0.0)) == Grid(1.0, 0)
    assert grid_of(Range(0.0, 1e-38)).scale == 1.0


@pytest.mark.parametrize("axis", [0, 1])
def test_weights_are_off_by_half_a_quantum_of_their_channel(axis):
    rng = np.random.default_rng(0)
    shape = [1, 1, 1, 1]
    shape[axis] = 8
    sizes = 10.0 ** rng.integers(-4, 4, shape)
    weight = (rng.normal(size=(8, 8, 3, 3)) * sizes).astype(np.float32)
    stored, scale = quantise_weights(weight, axis, None, 0.1)
    assert stored.dtype == np.int8
    assert stored.min() >= -127
    rest = tuple(i for i in range(4) if i != axis)
    assert (np.abs(stored).max(axis=rest) == 127).all()
    read = stored * scale.astype(np.float64).reshape(shape)
    assert (np.abs(read - weight) <= 0.501 * scale.reshape(shape)).all()


def test_a_dead_channel_keeps_its_bias():
    weight = np.zeros((3, 2, 1, 1), np.float32)
    weight[2] = 1e-30  # as dead
    bias = np.array([0.731, 0.0, -5.0], np.float32)
    stored, scale = quantise_weights(weight, 0, bias, 0.02)
    assert (scale > 0).all()
    whole, unit = quantise_bias(bias, 0.02, scale)
    np.testing.assert_allclose(whole * unit.astype(np.float64), bias, rtol=1e-6)
    assert not stored[:2].any()


def test_a_large_bias_leaves_room_for_the_sum():
    weight = np.full((1, 4, 1, 1), 1e-7, np.float32)
    bias = np.array([100.0], np.float32)
    _, scale = quantise_weights(weight, 0, bias, 1e-3)
    whole, unit = quantise_bias(bias, 1e-3, scale)
    assert abs(int(whole[0])) <= 2**30 + 2**7
    assert whole[0] * float(unit[0]) == pytest.approx(100, rel=1e-6)
