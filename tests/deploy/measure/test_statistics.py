import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.measure.statistics import percentile_ms, ratio_of_rounds, summarise

samples = st.lists(st.integers(1, 10**12), min_size=1, max_size=50)


@given(samples)
def test_a_summary_against_the_standard_library(ns):
    summary = summarise(ns)
    ms = [value / 1e6 for value in ns]
    assert summary.n == len(ns)
    assert summary.min_ms == pytest.approx(min(ms))
    assert summary.mean_ms == pytest.approx(statistics.fmean(ms))
    assert summary.median_ms == pytest.approx(statistics.median(ms))
    expected = statistics.stdev(ms) if len(ms) > 1 else 0
    assert summary.std_ms == pytest.approx(expected, rel=1e-6, abs=1e-6)
    order = [summary.min_ms, summary.median_ms, summary.p90_ms, summary.p95_ms, summary.p99_ms]
    assert order == sorted(order)
    assert summary.p99_ms <= max(ms) * (1 + 1e-12)


def test_percentiles_interpolate():
    ns = [value * 1_000_000 for value in range(1, 101)]
    summary = summarise(ns)
    assert (summary.p90_ms, summary.p95_ms) == pytest.approx((90.1, 95.05))
    assert summary.p99_ms == pytest.approx(99.01)
    assert percentile_ms(ns, 0) == 1
    assert percentile_ms(ns, 100) == 100
    assert percentile_ms(ns, 50) == summary.median_ms


def test_the_ratio_is_of_each_rounds_medians():
    peer = [[10, 10, 1000], [20, 20, 20], [30, 30, 30]]
    ours = [[10, 10, 10], [10, 10, 10], [10, 10, 10]]
    ratio = ratio_of_rounds(peer, ours)
    assert (ratio.median, ratio.low, ratio.high, ratio.rounds) == (2, 1, 3, 3)


def test_a_drift_of_the_whole_machine_does_not_change_the_ratio():
    rng = np.random.default_rng(0)
    drift = np.linspace(1, 2, 7)
    peer = [[int(2e6 * d * f) for f in rng.uniform(0.99, 1.01, 9)] for d in drift]
    ours = [[int(1e6 * d * f) for f in rng.uniform(0.99, 1.01, 9)] for d in drift]
    assert ratio_of_rounds(peer, ours).median == pytest.approx(2, rel=0.02)


def test_sides_of_different_length_are_a_mistake():
    with pytest.raises(ValueError, match="zip"):
        ratio_of_rounds([[1]], [[1], [2]])
