import pytest

from benchmarks.linearity import names_by_pixels, per_pixel, table
from deploy.resolution import Resolution
from lut.errors import UserError


def test_nanoseconds_a_pixel_and_ratio_to_the_smallest():
    samples = {400: [[4_400, 4_400], [8_000, 8_000]], 100: [[1_000, 1_000], [2_000, 2_000]]}
    rows = table(samples, {100: "10x10", 400: "20x20"})
    assert rows[2] == "| 10x10 | 0.00 | 15.00 [10.00..20.00] | 1.000 [1.000..1.000] |"
    assert rows[3] == "| 20x20 | 0.01 | 15.50 [11.00..20.00] | 1.050 [1.000..1.100] |"


def test_sizes_of_equally_many_pixels_are_refused():
    assert names_by_pixels([Resolution(8, 16), Resolution(16, 16)]) == {128: "8x16", 256: "16x16"}
    with pytest.raises(UserError, match="8x16 and 16x8 have equally many pixels"):
        names_by_pixels([Resolution(8, 16), Resolution(16, 8)])


def test_small_times_keep_their_digits():
    assert per_pixel([[1_234_567]], 1_000_000) == [[1234]]
