"""What stops a run."""

import math
from dataclasses import replace

import pytest
import torch

from hmseg.train.config import Stage, TrainConfig
from hmseg.train.distributed import World
from hmseg.train.guard import check_batches, finite_loss, require_finite
from lut.errors import UserError

CONFIG = TrainConfig("tiny-mrms", "camvid", (Stage((64, 64), 4, 1), Stage((64, 64), 6, 1)))


def test_batches_that_can_be():
    check_batches(CONFIG, 6, World(0, 2))
    check_batches(CONFIG, 7, World())


@pytest.mark.parametrize(
    ("images", "processes", "message"),
    [
        (5, 1, "has 5 images, too few for a batch of 6"),
        (9, 6, "a batch of 4 cannot be shared out over 6 processes"),
    ],
)
def test_batches_that_cannot_be(images: int, processes: int, message: str):
    with pytest.raises(UserError, match=message):
        check_batches(CONFIG, images, World(0, processes))


def test_batch_norm_needs_two_images():
    with pytest.raises(UserError, match="at least 2 images in each process's batch"):
        check_batches(replace(CONFIG, stages=(Stage((64, 64), 4, 1),)), 9, World(0, 4))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite(value: float):
    assert finite_loss(1.5, 7) == 1.5
    with pytest.raises(UserError, match="at step 7; the last good checkpoint is kept"):
        finite_loss(value, 7)
    weights = {"a": torch.ones(2), "count": torch.ones((), dtype=torch.int64)}
    require_finite(weights, 7)
    with pytest.raises(UserError, match="b is not finite after step 7"):
        require_finite(weights | {"b": torch.tensor([1.0, value])}, 7)
