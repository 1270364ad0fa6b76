import numpy as np
import pytest

from deploy import street as drawing
from deploy.resolution import Resolution
from deploy.street import draw_street, street_labels
from hmseg.data.classes import CAMVID
from hmseg.train.confusion import Confusion
from hmseg.train.metrics import torch_predictor
from hmseg.zoo import create_model


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


def test_labels_are_camvids():
    for name, label in (("SKY", 0), ("SIGN", 6), ("PEDESTRIAN", 9)):
        assert getattr(drawing, name) == label
        assert CAMVID.names[label].upper().startswith(name)
    labels = street_labels(Resolution(256, 512))
    assert (labels.dtype, labels.shape) == (np.uint8, (256, 512))
    assert set(np.unique(labels)) == {0, 1, 2, 3, 4, 5, 6, 8, 9}
    assert (labels[-20:, 200:300] == drawing.ROAD).all()


def test_the_released_network_sees_what_is_drawn():
    size = Resolution(256, 512)
    predict = torch_predictor(create_model("tiny-hmseg", pretrained="camvid"))
    confusion = Confusion(len(CAMVID.names))
    confusion.add(street_labels(size), predict(draw_street(size)))
    drawn = np.unique(street_labels(size))
    assert np.trace(confusion.matrix) / confusion.matrix.sum() > 0.9
    assert confusion.iou[drawn].mean() > 0.6
