import math

import numpy as np
import pytest

from deploy.noise import UNIT, Deviation


def test_it_is_numpys_in_double():
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 1e3, (3, 4, 5)).astype(np.float32)
    wanted = scores + rng.normal(0, 1e-3, scores.shape)
    error = scores.astype(np.float64) - wanted
    found = Deviation.between(scores, wanted)
    assert found.rms == pytest.approx(math.sqrt((error**2).mean()), rel=1e-12)
    assert found.largest == np.abs(error).max()
    size = Deviation.size(scores)
    assert size.rms == pytest.approx(math.sqrt((scores.astype(np.float64) ** 2).mean()), rel=1e-12)
    assert size.largest == np.abs(scores).max()


@pytest.mark.parametrize("shape", [(), (7,), (2, 3), (0,)])
def test_any_shape(shape):
    assert Deviation.between(np.ones(shape), np.zeros(shape)).largest == (0 not in shape)


class TestWhatIsNotFinite:
    def between(self, scores: list[float], reference: list[float]) -> Deviation:
        return Deviation.between(np.array([scores, [0, 0]]), np.array([reference, [0, 0]]))

    @pytest.mark.parametrize("place", [0, 1])
    def test_nan_is_never_near(self, place):
        allowed = Deviation(1e9, 1e9)
        pair = [[1.0, math.nan], [1.0, 1.0]]
        found = self.between(*pair[:: 1 - 2 * place])
        assert math.isnan(found.rms)
        assert math.isnan(found.largest)
        assert not found.within(allowed)
        assert not self.between([math.nan, 1], [math.nan, 1]).within(allowed)

    def test_infinity_is_where_both_have_it(self):
        assert self.between([math.inf, 1], [math.inf, 1]) == Deviation(0, 0)
        assert self.between([-math.inf, 1], [math.inf, 1]).largest == math.inf
        assert self.between([5, 1], [math.inf, 1]).largest == math.inf

    def test_nothing_is_within_infinity(self):
        assert not Deviation(1, 1).within(Deviation(math.inf, math.inf))
        assert not Deviation(1, 1).within(Deviation(math.nan, 2))

    def test_infinite_scores_have_no_part_in_the_size(self):
        assert Deviation.size(np.array([[3.0, math.inf, -4.0, math.nan]])).largest == 4


def test_each_statistic_is_by_itself():
    one, other = Deviation(1, 4), Deviation(2, 2)
    assert one.or_more(other) == Deviation(2, 4)
    assert one.or_less(other) == Deviation(1, 2)
    assert one.times(other) == Deviation(2, 8)
    assert one.over(other) == Deviation(0.5, 2)
    assert one * 3 == Deviation(3, 12)
    assert not one.within(other)
    assert not other.within(one)
    assert other.over(Deviation(0, 0)) == other
    assert math.isnan(Deviation(math.nan, 1).or_more(other).rms)


def test_the_unit_is_the_rounding_of_one():
    assert np.float32(1 + UNIT) == 1
    assert np.float32(1 + 1.01 * UNIT) > 1
