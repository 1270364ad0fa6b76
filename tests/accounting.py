"""A pytest plugin: the account of a run, over all workers of pytest-xdist.

What was collected has run, or was left out because this machine lacks what it needs
(tests/conditions.py), or was deselected by the user: anything else fails the run, which would
otherwise pass with fewer tests than there are. At the end stand the tests that were left out, each
with its reason, and the CPU seconds of each file, so that the next slow one is seen.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from tests.conditions import explains

_SLOWEST = 15
_BEGINNING = "start and collection"


def _cpu_seconds() -> float:
    """Of this process and of those that it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


class Account:
    """Of this process's tests; in the process that has pytest-xdist's workers, of theirs."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.collected = self.deselected = 0
        self.ended: set[str] = set()
        self.skipped: dict[str, str] = {}
        self.seconds: Counter[str] = Counter()
        self._collecting = True

    # In each process that collects and runs tests.

    @pytest.hookimpl(tryfirst=True)  # before anything that could drop some
    def pytest_collection_modifyitems(self, items: Sequence[pytest.Item]) -> None:
        """Count."""
        self.collected = len(items)

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        """Count what the user's options leave out."""
        self.deselected += len(items)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """A test with its fixtures, those too that later tests share."""
        start = _cpu_seconds()
        if self._collecting:
            self._collecting, self.seconds[_BEGINNING] = False, start
        result = yield
        self.seconds[_file_of(item.nodeid)] += _cpu_seconds() - start
        return result

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """A worker hands its part over; the one who counts decides."""
        if hasattr(self.config, "workeroutput"):
            self.config.workeroutput["account"] = {
                "collected": self.collected,
                "deselected": self.deselected,
                "seconds": dict(self.seconds),
            }
        elif session.exitstatus == pytest.ExitCode.OK and self.wrong():
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    # In the process that counts.

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """Take a worker's part over; every worker collects the same tests."""
        del error
        if part := getattr(node, "workeroutput", {}).get("account"):
            self.collected, self.deselected = part["collected"], part["deselected"]
            self.seconds.update(part["seconds"])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note outcomes."""
        if report.skipped and not hasattr(report, "wasxfail"):
            self._leave_out(report)
        if report.when not in ("setup", "call"):  # so too where a worker crashed
            self.ended.add(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a file that was left out whole, before its tests could be counted."""
        if report.skipped:
            self._leave_out(report)

    def _leave_out(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
        self.skipped[report.nodeid] = str(reason).removeprefix("Skipped: ")

    def wrong(self) -> list[str]:
        """What keeps the account from being whole, in words."""
        if self.config.option.collectonly:
            return []
        left = self.collected - self.deselected - len(self.ended)
        wrong = [f"{left} of {self.collected} tests that were collected did not run"] * bool(left)
        return wrong + [
            f"{test} was left out, which no condition of this machine explains: {reason}"
            for test, reason in self.skipped.items()
            if not explains(reason)
        ]

    def pytest_terminal_summary(
        self, terminalreporter: pytest.TerminalReporter, exitstatus: pytest.ExitCode
    ) -> None:
        """The account, unless no test was to run or the run was broken off."""
        write = terminalreporter.line
        ended = exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
        if self.config.option.collectonly or not ended:
            return
        terminalreporter.section("account")
        total = sum(self.seconds.values())
        slowest = [pair for pair in self.seconds.most_common() if pair[0] != _BEGINNING]
        write(f"{total:7.1f} CPU seconds in all, {self.seconds[_BEGINNING]:.1f} {_BEGINNING}")
        for name, seconds in slowest[:_SLOWEST]:
            write(f"{seconds:7.1f} {name}")
        if rest := slowest[_SLOWEST:]:
            write(f"{sum(s for _, s in rest):7.1f} {len(rest)} other files")
        by_reason: dict[str, list[str]] = defaultdict(list)
        for test, reason in self.skipped.items():
            by_reason[reason].append(test)
        for reason, tests in sorted(by_reason.items()):
            write(f"left out, {reason}:")
            for test in sorted(tests):
                write(f"    {test}")
        ran = len(self.ended - self.skipped.keys())
        write(
            f"{self.collected} tests collected: {ran} ran, {len(self.skipped)} were left out for "
            f"want of what this machine lacks, {self.deselected} were deselected"
        )
        for line in self.wrong():
            write(f"ERROR: {line}", red=True)


def _file_of(test: str) -> str:
    return test.partition("::")[0]


def pytest_configure(config: pytest.Config) -> None:
    """Begin the account."""
    config.pluginmanager.register(Account(config), "account")
