"""Settings of a search that cannot be."""

import math
from dataclasses import replace

import pytest

from lut.errors import UserError
from tests.hmseg.search.searches import CONFIG


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"warmup_steps": 6}, "6 warm-up steps leave none of 6"),
        ({"estimator": "score"}, "needs at least 2 samples"),
        ({"samples": 0}, "needs a path"),
        ({"arch_learning_rate": 0.0}, "must be above 0"),
        ({"arch_learning_rate": math.inf}, "must be above 0"),
        ({"cost_weight": math.nan}, "must be above 0"),
        ({"prior": 1.0}, "at least 0 and below 1"),
        ({"prior": math.nan}, "at least 0 and below 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(change: dict, message: str):
    with pytest.raises(UserError, match=message):
        replace(CONFIG, **change)
