from collections.abc import Iterator

import pytest

from deploy.devices import emulated
from tests.deploy.devices.farm import LocalFarm


@pytest.fixture(scope="module")
def farm() -> Iterator[LocalFarm]:
    """A tracker of this file's own."""
    started = LocalFarm()
    yield started
    started.close()


@pytest.fixture(scope="module")
def emulated_farm() -> Iterator[LocalFarm]:
    """A tracker and the emulated ARM machine with the key ``arm``."""
    if not emulated.is_set_up(emulated.default_folder()):
        pytest.skip(
            "the emulated ARM machine is not set up here; "
            "run: hmseg-deploy device emulate --setup-only"
        )
    started = LocalFarm()
    try:
        started.emulate("arm")
        yield started
    finally:
        started.close()
