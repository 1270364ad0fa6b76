"""A run that leaves a test out fails, but where the machine lacks what the test needs."""

import re
from pathlib import Path

import pytest

from tests import conditions
from tests.conftest import ROOT, SLOW

TESTS = """
import pytest
from tests import conditions

def test_passes():
    pass

def test_needs_it():
    conditions.CONDITIONS[0].require()
"""
WORKS = """
import os, time

def test_works():
    end = time.process_time() + 0.3
    while time.process_time() < end:
        pass

def test_a_program_works():
    assert os.system("python -c 'while __import__(\\"time\\").process_time() < 0.3: pass'") == 0
"""
LACKING = (conditions.Condition("no such thing here", lambda: False),)
LACKS = """
from tests import conditions

conditions.CONDITIONS = (conditions.Condition("no such thing here", lambda: False),)
"""
DROPS = "def pytest_collection_modifyitems(items):\n    del items[0]"
PASSES_OVER = "def pytest_runtest_protocol(item):\n    return item.name == 'test_passes' or None"


@pytest.fixture
def run(pytester, monkeypatch):
    """Run tests with the account: with workers in processes of their own, else in this one."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setattr(conditions, "CONDITIONS", LACKING)

    def run(source: str, *options: str, conftest: str = "", workers: int = 0) -> pytest.RunResult:
        pytester.makeconftest(f'pytest_plugins = ["tests.accounting"]\n{conftest}\n')
        pytester.makepyfile(test_it=source)
        if workers:
            return pytester.runpytest_subprocess("-p", "xdist", "-n", str(workers), *options)
        return pytester.runpytest_inprocess(*options)

    return run


@pytest.mark.parametrize("workers", [0, 2])
def test_a_whole_account(run, workers):
    done = run(TESTS + WORKS, conftest=LACKS * bool(workers), workers=workers)
    assert done.ret == 0
    done.stdout.fnmatch_lines([
        "*CPU seconds in all*", "*[0-9].[0-9] test_it.py", "left out, no such thing here:",
        "    test_it.py::test_needs_it", "4 tests collected: 3 ran, 1 were left out*",
    ])  # fmt: skip
    (line,) = (line for line in done.outlines if line.endswith(" test_it.py"))
    assert 0.6 <= float(line.split()[0]) < 6  # that of the program too


@pytest.mark.parametrize(
    ("source", "conftest", "error"),
    [
        # Any other reason, also one that holds for another machine.
        ("def test_late():\n    pytest.skip('no time')", "",
         "test_it.py::test_late was left out, which no condition *explains: no time"),
        ("def test_has():\n    pytest.skip('there is one here')", "",
         "test_it.py::test_has was left out, which no condition *"),
        # Nothing is said of it, but it does not run.
        ("", DROPS, "1 of 2 tests that were collected did not run"),
        ("", PASSES_OVER, "1 of 2 tests that were collected did not run"),
    ],
    ids=["reason", "not lacking", "dropped", "passed over"],
)  # fmt: skip
def test_a_test_is_left_out(run, monkeypatch, source, conftest, error):
    has = conditions.Condition("there is one here", lambda: True)
    monkeypatch.setattr(conditions, "CONDITIONS", (*LACKING, has))
    done = run(f"{TESTS}\n{source}\n", conftest=conftest)
    assert done.ret == 1
    done.stdout.fnmatch_lines(["ERROR: " + error])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_is_left_out_whole(run, pytester, workers):
    """Its tests were never collected, so that nothing is missing but the file."""
    late = "import pytest\npytest.skip('no time', allow_module_level=True)\ndef test_late(): pass\n"
    pytester.makepyfile(test_other=late)
    done = run(TESTS, conftest=LACKS * bool(workers), workers=workers)
    assert done.ret == 1
    done.stdout.fnmatch_lines([
        "2 tests collected: 1 ran, 2 were left out*",
        "ERROR: test_other.py was left out, which no condition *explains: no time",
    ])  # fmt: skip


def test_a_worker_drops_a_test(run):
    done = run(TESTS, conftest=LACKS + DROPS, workers=1)
    assert done.ret == 1
    done.stdout.fnmatch_lines(["ERROR: 1 of 2 tests that were collected did not run"])


def test_what_the_user_deselects(run):
    done = run(TESTS, "-k", "passes")
    assert done.ret == 0
    done.stdout.fnmatch_lines(["2 tests collected: 1 ran*, 1 were deselected"])


def test_a_crash_is_an_outcome(run):
    """Of one test; the others run in another worker."""
    crash = "\ndef test_a():\n    __import__('os')._exit(3)\n"
    done = run(TESTS + crash, conftest=LACKS, workers=1)
    assert done.ret == 1
    done.stdout.fnmatch_lines(["3 tests collected: 2 ran, 1 were left out*"])


def test_features_of_the_cpu(monkeypatch):
    monkeypatch.setattr("deploy.host.cpu_flags", lambda: frozenset({"avx2", "pni"}))
    with pytest.raises(pytest.skip.Exception, match="lacks avx512f, fma") as skipped:
        conditions.require_features(("avx512f", "avx2", "fma"))
    assert conditions.explains(str(skipped.value))
    assert not conditions.explains("this CPU lacks avx512f, avx2")
    conditions.require_features(("sse3",))


def test_only_conditions_leave_tests_out():
    """Nothing else in tests/ speaks pytest's words for it."""
    words = re.compile(r"pytest\.(skip|importorskip|xfail|mark\.(skip|skipif|xfail))\b")
    own = {"conditions.py", Path(__file__).name}
    files = [path for path in (ROOT / "tests").rglob("*.py") if path.name not in own]
    assert len(files) > 100
    assert [str(path) for path in files if words.search(path.read_text())] == []
    assert words.search("@pytest.mark.skipif(True)")


def test_the_slow_files_exist():
    assert [name for name in SLOW if not (ROOT / name).exists()] == []
