"""Settings of the whole suite."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# A worker of pytest-xdist runs on every core: pools that spin while they wait would take the cores
# from the others. Read when a library starts its pool, also by the programs that tests start.
for _name, _value in (
    ("TVM_THREAD_POOL_SPIN_COUNT", "0"), ("OMP_WAIT_POLICY", "passive"), ("GOMP_SPINCOUNT", "0"),
):  # fmt: skip
    os.environ.setdefault(_name, _value)

# The same examples on every run, and no deadline: a busy machine is no failure.
settings.register_profile("hmseg", deadline=None, derandomize=True, database=None)
settings.load_profile("hmseg")

# Files that take a minute or more, slowest first: begun first, they leave no core idle at the end.
SLOW = (
    "test_readme.py",
    "tuning/test_search.py",
    "devices/test_measuring.py",
    "measure/test_build_table.py",
    "tuning/test_tune.py",
    "deploy/test_build.py",
    "benchmarks/test_full_schedule.py",
    "devices/test_network.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the files for pytest-xdist, which hands them out one by one."""

    def rank(item: pytest.Item) -> int:
        path = Path(item.path).as_posix()
        return next((i for i, name in enumerate(SLOW) if path.endswith(name)), len(SLOW))

    items.sort(key=rank)
