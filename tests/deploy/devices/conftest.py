from collections.abc import Iterator

import pytest

from deploy.devices import emulated
from tests.deploy.devices.farm import Launcher, LocalFarm


@pytest.fixture(scope="session")
def launcher() -> Iterator[Launcher]:
    started = Launcher()
    yield started
    started.close()


@pytest.fixture(scope="module")
def farm(launcher: Launcher) -> Iterator[LocalFarm]:
    """A tracker of this file's own."""
    started = LocalFarm(launcher)
    yield started
    started.close()


@pytest.fixture(scope="session")
def emulated_farm(launcher: Launcher) -> Iterator[LocalFarm]:
    """A tracker and the emulated ARM machine with the key ``arm``; its start takes a minute."""
    if not emulated.is_set_up(emulated.default_folder()):
        pytest.skip(
            "the emulated ARM machine is not set up here; "
            "run: hmseg-deploy device emulate --setup-only"
        )
    started = LocalFarm(launcher)
    try:
        started.emulate("arm")
        yield started
    finally:
        started.close()
