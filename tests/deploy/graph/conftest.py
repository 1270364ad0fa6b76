"""Every test here draws the same numbers, whatever ran before it in its process."""

import numpy as np
import pytest

from tests.deploy.graph import nets


@pytest.fixture(autouse=True)
def numbers_of_its_own() -> None:
    nets.RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state
