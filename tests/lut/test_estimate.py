import random
from dataclasses import replace

import pytest

from lut.errors import UserError
from lut.estimate import LatencyCost, calibrate
from lut.table import Measure
from tests.lut.tables import IDENTITY, KEY, OTHER, again, table, visit


def test_calibration_finds_what_it_was_made_of():
    sums = [100.0, 150.0, 210.0, 400.0]
    fit = calibrate(sums, [30 + 1.02 * s for s in sums])
    assert fit.overhead_us == pytest.approx(30)
    assert fit.factor == pytest.approx(1.02)
    assert fit.error == pytest.approx(0, abs=1e-12)
    with pytest.raises(UserError, match="nothing can be fitted"):
        calibrate([1.0] * 4, [2.0] * 4)


@pytest.mark.parametrize("edge", [None, 500.0, 3000.0])
def test_the_error_is_that_of_unseen_networks(edge):
    """Of networks like those that calibrate, and of ones far outside."""
    rng, kept = random.Random(5), 0
    for _ in range(300):
        sums = [rng.uniform(1000, 2000) for _ in range(17)]
        sums[0] = edge or sums[0]
        wholes = [(50 + s) * rng.gauss(1, 0.02) for s in sums]
        visits = [visit("e", {KEY: 1.0})] + [
            visit(str(i), {KEY: 1.0}, whole=w, role="calibration", calls=round(s))
            for i, (s, w) in enumerate(zip(sums[1:], wholes[1:], strict=True))
        ]
        estimate = LatencyCost(table(*visits)).network(sums[0])
        kept += abs(estimate.value - wholes[0]) <= estimate.error
    assert 0.90 < kept / 300 < 0.99


def test_estimate_of_a_network():
    calibration = [
        visit(str(n), {KEY: 1.0, OTHER: 1.0}, whole=40 + 13 * n, role="calibration", calls=n)
        for n in (1, 2, 3, 4)
    ]
    cost = LatencyCost(table(visit("e", {KEY: 10.0, OTHER: 3.0}), *calibration))
    assert cost.entry(KEY) == 10.0
    estimate = cost.network(2 * cost.entry(KEY) + 2 * cost.entry(OTHER))
    assert estimate.value == pytest.approx(66)
    assert estimate.upper == pytest.approx(66)
    assert estimate.unit == "us"


def test_too_few_networks_and_missing_entries_raise():
    with pytest.raises(UserError, match=r"0 calibration networks of at least 4") as caught:
        LatencyCost(table(visit())).network(1.0)
    assert caught.value.mend == Measure(IDENTITY, "t.jsonl")
    with pytest.raises(UserError, match="no entry"):
        LatencyCost(table(visit())).entry(OTHER)


def test_a_table_that_was_timed_again_is_fitted_to_that():
    """Twice as slow, and 10 us more in a frame; further networks count beside."""

    def visits(overhead, speed):
        return [
            visit(str(n), {KEY: 10.0 * speed}, whole=(overhead + 11 * n) * speed, calls=n,
                  reference=100.0 * speed, role="calibration")
            for n in (1, 2, 3, 4)
        ]  # fmt: skip

    built = table(visit("e", {KEY: 10.0}), *visits(40, 1))
    assert LatencyCost(built).network(100.0).value == pytest.approx(40 + 110)
    cost = LatencyCost(replace(built, retimings=(again(*visits(50, 2)),)))
    assert cost.entry(KEY) == 10.0
    assert cost.network(100.0).value == pytest.approx(2 * (50 + 110))
    assert cost.calibration.factor == pytest.approx(2.2)
    # One more that took 30% longer, where the others say nothing of an error.
    further = LatencyCost(cost.table, [(100.0, 1.3 * 320)])
    assert further.calibration.networks == 5
    assert 320 < further.network(100.0).value < 1.3 * 320 < further.network(100.0).upper
