"""Trackers and device servers in processes of their own, on loopback."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from deploy.devices import emulated
from deploy.devices.address import LOOPBACK, Address
from deploy.devices.session import Farm
from deploy.devices.tracker import states
from lut.errors import HmsegError

START_S, EMULATED_START_S = 30.0, 240.0  # beside other tests


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        return listener.getsockname()[1]


def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.1)


def children(pid: int) -> list[int]:
    return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()] + [
        int(n)
        for task in Path(f"/proc/{pid}/task").iterdir()
        if task.name != str(pid)
        for n in (task / "children").read_text().split()
    ]


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


class Started:
    """A process; `port` is where a tracker or a server begins to look for a free one."""

    def __init__(self, pid: int, port: int) -> None:
        self.pid, self.port = pid, port

    def kill(self) -> None:
        """End it, whatever it does; returns when it has ended."""
        if alive(self.pid):
            os.kill(self.pid, signal.SIGKILL)
        until(lambda: not alive(self.pid), 20, "the end of a process")


class Launcher:
    """`tests.deploy.devices.launcher`."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.deploy.devices.launcher"], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def start(self, what: str, tracker: Address, port: int, **job: object) -> Started:
        """Copies of it end when it ends."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        job |= {"what": what, "tracker": tracker, "port": port}
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return Started(int(self._process.stdout.readline()), port)

    def close(self) -> None:
        """With all its copies."""
        self._process.kill()
        self._process.communicate()


class LocalFarm:
    """A tracker and any number of servers; all of it ends with `close`."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self.tracker = Address(LOOPBACK, free_port())
        self.started: list[Started] = []
        self._emulated: list[subprocess.Popen] = []
        self.tracker_process = self.start_tracker()

    def start_tracker(self) -> Started:
        process = self._launcher.start("tracker", self.tracker, self.tracker.port)
        self.started.append(process)
        until(lambda: self._keys() is not None, START_S, "the tracker")
        return process

    def serve(self, key: str, count: int = 1, *, what: str = "server", **job) -> list[Started]:
        """Start servers with a key; returns when they are registered, besides those before."""
        wanted = self.devices(key) + count
        started = [
            self._launcher.start(what, self.tracker, free_port(), key=key, **job)
            for _ in range(count)
        ]
        self.started += started
        until(lambda: self.devices(key) >= wanted, START_S, f"{count} servers {key}")
        return started

    def visit(self, key: str) -> Started:
        """Start a client that stays in a kernel on a device."""
        self.started.append(self._launcher.start("client", self.tracker, 0, key=key))
        return self.started[-1]

    def emulate(self, key: str) -> None:
        """The emulated ARM machine, as `hmseg-deploy device emulate` starts it."""
        command = emulated.server_command(emulated.default_folder(), self.tracker, key)
        process = subprocess.Popen(
            command, env=emulated.environment(), stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        self._emulated.append(process)
        until(lambda: self.devices(key) == 1, EMULATED_START_S, "the emulated machine")

    def farm(self, key: str, **options) -> Farm:
        return Farm(self.tracker, key, **{"call_limit_s": 60.0, "wait_s": 30.0, **options})

    def devices(self, key: str) -> int:
        return len((self._keys() or {}).get(key, ()))

    def free(self, key: str) -> int:
        return sum(state.free for state in states(self.tracker) if state.key == key)

    def close(self) -> None:
        for process in self.started:
            process.kill()
        for process in self._emulated:
            process.kill()
            process.wait()

    def _keys(self) -> dict[str, tuple[str, ...]] | None:
        try:
            return {state.key: state.devices for state in states(self.tracker)}
        except HmsegError:
            return None
