"""Ranges by three methods."""

import numpy as np
import pytest

from deploy.quantise.ranges import ENTROPY, METHODS, MIN_MAX, PERCENTILE, Seen, error_of, ranges_of
from deploy.quantise.scales import Range, grid_of

RNG = np.random.default_rng(0)


def seen(x) -> Seen:
    x = np.asarray(x, np.float32)
    return Seen(float(x.min()), float(x.max()), x)


def test_min_max_is_what_was_seen_also_outside_the_sample():
    one = Seen(-3.0, 5.0, np.zeros(4, np.float32))
    assert ranges_of(one)[MIN_MAX] == Range(-3.0, 5.0)


def test_a_percentile_leaves_out_few():
    x = np.append(RNG.normal(size=100_000), [80.0, -90.0])
    found = ranges_of(seen(x))[PERCENTILE]
    assert 3 < found.high < 6
    assert -6 < found.low < -3
    assert error_of(seen(x), found) < 20 * error_of(seen(x), Range(-90, 80))


def test_entropy_leaves_out_what_tells_little():
    x = np.append(RNG.normal(size=200_000), np.linspace(10, 60, 20))
    found = ranges_of(seen(x))
    assert found[ENTROPY].high < 50
    assert error_of(seen(x), found[ENTROPY]) < error_of(seen(x), found[MIN_MAX])


@pytest.mark.parametrize("x", [RNG.uniform(-1, 1, 50_000), np.maximum(RNG.normal(size=50_000), 0)])
def test_where_nothing_lies_far_out_all_agree(x):
    for found in ranges_of(seen(x)).values():
        assert found.high >= 0.85 * x.max()
        assert (found.low < 0) == (x.min() < 0)


def test_an_end_at_zero_stays_there():
    for found in ranges_of(seen(np.maximum(RNG.normal(size=1000), 0))).values():
        assert grid_of(found).zero == 0


@pytest.mark.parametrize("x", [np.zeros(9), np.full(9, 0.25), np.full(9, -3.0), np.empty(0)])
def test_constant_maps(x):
    low, high = (float(x.min()), float(x.max())) if x.size else (0.0, 0.0)
    one = Seen(low, high, x.astype(np.float32))
    for found in ranges_of(one).values():
        assert error_of(one, found) < 1e-12


def test_an_error_is_numpys():
    x = RNG.normal(size=500).astype(np.float32)
    scale = 4 / 255
    q = np.clip(np.rint(x / scale) + 64, 0, 255)  # 1 / scale = 63.75
    wanted = np.mean(((q - 64) * scale - x) ** 2)
    assert error_of(seen(x), Range(-1, 3)) == pytest.approx(wanted, rel=1e-3)


def test_the_methods_are_named_as_everywhere():
    assert tuple(ranges_of(seen([0.0, 1.0]))) == METHODS == ("min-max", "percentile", "entropy")
