"""Trackers and device servers in processes of their own, on loopback."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from deploy.devices import emulated
from deploy.devices.address import LOOPBACK, Address
from deploy.devices.session import Farm
from deploy.devices.tracker import states
from lut.errors import HmsegError

PROGRAM = [sys.executable, "-m", "deploy.cli.hmseg_deploy"]
START_S = 120.0  # an emulated server beside other tests


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


class LocalFarm:
    """A tracker and any number of servers; all of it ends with `close`."""

    def __init__(self) -> None:
        self.tracker = Address(LOOPBACK, free_port())
        self.processes: list[subprocess.Popen] = []
        self.tracker_process = self.start_tracker()

    def start_tracker(self) -> subprocess.Popen:
        process = self._start([*PROGRAM, "device", "tracker", "--port", str(self.tracker.port)])
        until(lambda: self._keys() is not None, START_S, "the tracker")
        return process

    def serve(
        self, key: str, count: int = 1, command: Sequence[str] | None = None, *,
        at_least: int = 0, **env: str,
    ) -> list[subprocess.Popen]:  # fmt: skip
        """Start servers with a key; returns when they, or `at_least` so many, are registered."""
        own = [*PROGRAM, "device", "serve", "--rpc-tracker", str(self.tracker), "--rpc-key", key]
        started = [
            self._start(command or [*own, "--port", str(free_port())], **env) for _ in range(count)
        ]
        until(lambda: self.devices(key) >= max(count, at_least), START_S, f"{count} servers {key}")
        return started

    def emulate(self, key: str) -> subprocess.Popen:
        folder = emulated.default_folder()
        command = emulated.server_command(folder, self.tracker, key)
        return self.serve(key, command=command, **emulated.environment())[0]

    def farm(self, key: str, **options) -> Farm:
        return Farm(self.tracker, key, **{"call_limit_s": 60.0, "wait_s": 30.0, **options})

    def devices(self, key: str) -> int:
        return len((self._keys() or {}).get(key, ()))

    def free(self, key: str) -> int:
        return sum(state.free for state in states(self.tracker) if state.key == key)

    def close(self) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()

    def _keys(self) -> dict[str, tuple[str, ...]] | None:
        try:
            return {state.key: state.devices for state in states(self.tracker)}
        except HmsegError:
            return None

    def _start(self, command: Sequence[str], **env: str) -> subprocess.Popen:
        process = subprocess.Popen(
            command, env={**os.environ, **env}, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        self.processes.append(process)
        return process


def kill(process: subprocess.Popen) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
