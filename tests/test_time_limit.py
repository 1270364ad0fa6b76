"""Where .ci/run's time is over, tests are left out and named; without a limit none is."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(("seconds", "outcome"), [(-1, "1 skipped"), (3600, "1 passed")])
def test_the_limit(seconds: int, outcome: str):
    env = os.environ | {"HMSEG_TESTS_UNTIL": str(int(time.time()) + seconds)}
    one = "tests/test_readme.py::test_ci_runs_the_same_test_command"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", one], cwd=ROOT, env=env,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert outcome in done.stdout
    named = "1 tests were left out: the time of .ci/run is over" in done.stdout
    assert named == (seconds < 0)
    assert ("    1 tests/test_readme.py" in done.stdout) == (seconds < 0)
