"""Settings of the whole suite."""

import os
import time
from collections import Counter
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

# The README's commands are one long test: it is begun first, to leave no core idle at the end. Then
# comes what is not deploy's, whose tests are shorter, then deploy's, and last the files that take a
# minute or more, slowest first: where time is limited (below), the last are what is left out.
FIRST = "test_readme.py"
SLOW = (
    "tuning/test_metaschedule.py",
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
        if path.endswith(FIRST):
            return -3
        package = -1 if "tests/deploy/" in path else -2
        return next((i for i, name in enumerate(SLOW) if path.endswith(name)), package)

    items.sort(key=rank)


# Seconds since 1970 after which no test is begun, in the environment; .ci/run has 20 minutes, and a
# slow machine needs more for all tests. `pytest` alone has no limit.
LIMIT = "HMSEG_TESTS_UNTIL"
LEFT_OUT = "left out: the time of .ci/run is over; `pytest` runs all tests"


@pytest.hookimpl(tryfirst=True)  # before the fixtures, which may take minutes
def pytest_runtest_setup() -> None:
    """Leave out what has not begun in time."""
    if time.time() > float(os.environ.get(LIMIT, "inf")):
        pytest.skip(LEFT_OUT)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many tests were left out, and of which files."""
    skipped = terminalreporter.stats.get("skipped", [])
    files = Counter(r.nodeid.partition("::")[0] for r in skipped if LEFT_OUT in str(r.longrepr))
    if files:
        terminalreporter.section(f"{files.total()} tests were {LEFT_OUT}")
        for name, count in sorted(files.items()):
            terminalreporter.line(f"{count:5} {name}")
