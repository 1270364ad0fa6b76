"""Settings of the whole suite."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import settings

from deploy.devices import emulated

pytest_plugins = ["tests.accounting", "pytester"]

# A worker of pytest-xdist runs on every core: pools that spin while they wait would take the cores
# from the others. Read when a library starts its pool, also by the programs that tests start.
for _name, _value in (
    ("TVM_THREAD_POOL_SPIN_COUNT", "0"), ("OMP_WAIT_POLICY", "passive"), ("GOMP_SPINCOUNT", "0"),
):  # fmt: skip
    os.environ.setdefault(_name, _value)

# zig compiles musl for the program that is sent to devices, 40 s for each architecture: not again
# where this user's cache has it, which `users_folder`, below, would hide.
_CACHES = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
os.environ.setdefault("ZIG_GLOBAL_CACHE_DIR", str(_CACHES / "zig"))

# The same examples on every run, and no deadline: a busy machine is no failure.
settings.register_profile("hmseg", deadline=None, derandomize=True, database=None)
settings.load_profile("hmseg")

ROOT = Path(__file__).parent.parent
# Files that take longest, first: begun late, one of them would leave a core idle at the end.
SLOW = (
    "tests/test_readme.py",
    "tests/benchmarks/test_full_schedule.py",
    "tests/deploy/devices/test_faults.py",
    "tests/deploy/tables/test_networks.py",
    "tests/deploy/test_build.py",
    "tests/deploy/tuning/test_metaschedule.py",
    "tests/deploy/devices/test_network.py",
    "tests/deploy/tables/test_for_real.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files for pytest-xdist, which hands them out one by one."""
    ranks = {ROOT / name: rank for rank, name in enumerate(SLOW)}
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all workers of this run (tests/shared.py)."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on searches and training draw no pictures, which take seconds: for runs whose like
    another test has drawn."""

    def draw(*arguments: object) -> None:
        Path(str(arguments[-1])).write_bytes(b"")

    for name in ("draw_network", "draw_probabilities", "draw_cost"):
        monkeypatch.setattr(f"hmseg.search.run.{name}", draw)
    monkeypatch.setattr("hmseg.train.run.draw_curves", draw)


@pytest.fixture(scope="session", autouse=True)
def users_folder(shared_folder: Path) -> Iterator[Path]:
    """The user's folder of this run, also of the programs that it starts. The cache of machine code
    in it begins empty, and what a command has compiled no other compiles again, whichever worker
    runs it; what the machine's user has there, records of tuning too, changes nothing.

    Only the emulated ARM machine, which a test cannot set up, is the user's.
    """
    folder = shared_folder / "home"
    folder.mkdir(exist_ok=True)
    machine = emulated.default_folder()
    if emulated.is_set_up(machine):
        with suppress(FileExistsError):  # another worker's
            (folder / machine.name).symlink_to(machine)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HMSEG_HOME", str(folder))
        yield folder
