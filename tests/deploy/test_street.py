import numpy as np
import pytest

from deploy.resolution import Resolution
from deploy.street import draw_street


@pytest.mark.parametrize("size", [(64, 64), (75, 125), (256, 512), (64, 1024), (700, 64)])
def test_any_size_is_a_picture(size):
    street = draw_street(Resolution(*size))
    assert (street.dtype, street.shape) == (np.uint8, (*size, 3))
    assert street.std() > 20
    assert len(np.unique(street.reshape(-1, 3), axis=0)) > 500


def test_it_is_the_same_picture_every_time():
    np.testing.assert_array_equal(draw_street(Resolution(64, 96)), draw_street(Resolution(64, 96)))


def test_it_is_rgb_with_the_sky_above_the_road():
    street = draw_street(Resolution(256, 512)).astype(int)
    sky, road = street[:20].mean((0, 1)), street[-20:, 200:300].mean((0, 1))
    assert sky[2] > sky[0]  # blue
    assert np.ptp(road) < 15  # grey
    assert sky.sum() > road.sum()
