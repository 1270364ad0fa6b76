"""Sets of pixels, counted one by one."""

import numpy as np
import pytest

from hmseg.train.confusion import Confusion
from lut.errors import UserError


def test_a_class_that_never_occurs_does_not_count():
    confusion = Confusion(3)
    confusion.add(np.array([[0, 1]], np.uint8), np.array([[0, 1]]))
    assert confusion.miou == 1
    assert confusion.iou_or_none == [1.0, 1.0, None]


def test_a_class_that_is_only_predicted_counts_as_zero():
    confusion = Confusion(2)
    confusion.add(np.array([[0, 0]], np.uint8), np.array([[0, 1]]))
    assert confusion.iou_or_none == [0.5, 0.0]


def test_what_does_not_fit_is_an_error():
    labels = np.zeros((2, 2), np.uint8)
    with pytest.raises(UserError, match="predicts class 3; the data has classes 0 to 1"):
        Confusion(2).add(labels, np.full((2, 2), 3))
    with pytest.raises(UserError, match="predicted 2x3 labels for a mask of 2x2"):
        Confusion(2).add(labels, np.zeros((2, 3), np.uint8))
    with pytest.raises(UserError, match="no labelled pixel"):
        _ = Confusion(2).miou
