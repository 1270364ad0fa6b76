from collections.abc import Iterator

import pytest

from tests.conditions import EMULATED_ARM
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
    EMULATED_ARM.require()
    started = LocalFarm(launcher)
    try:
        started.emulate("arm")
        yield started
    finally:
        started.close()
