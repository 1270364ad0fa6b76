"""A side from the outside: its process is started, asked, stopped and continued here.

Each side has a process of its own, so that runtimes neither share thread pools, affinities and
symbols nor crash each other. While it is not its turn, a side is stopped (SIGSTOP): no pool spins
beside another side's block.
"""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers_lib.adapters import OWN
from benchmarks.peers_lib.job import LabelEnd, Work, without_folders
from lut.errors import WorkError

ROOT = Path(__file__).parents[2]
PREPARE_TIMEOUT_S = 1800
REPLY_TIMEOUT_S = 900
_THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TVM_NUM_THREADS",
)  # fmt: skip


def environment(threads: int) -> dict[str, str]:
    """The environment of every side: pools are no larger than asked for."""
    return os.environ | dict.fromkeys(_THREAD_VARIABLES, str(threads))


def prepare(name: str, work: Work, log: Path) -> None:
    """Convert or compile in a process of its own; raises WorkError with the reason.

    Ours compiles on all cores, as for its users: how long that takes is a result.
    """
    limited = name not in OWN
    with log.open("w") as stderr:
        command = [*_worker(), "prepare", name, json.dumps(work.to_json())]
        try:
            done = subprocess.run(
                command, cwd=ROOT, text=True, check=False,
                env=environment(work.config.threads) if limited else dict(os.environ),
                stdout=subprocess.PIPE, stderr=stderr, timeout=PREPARE_TIMEOUT_S,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise WorkError(f"preparing took more than {PREPARE_TIMEOUT_S} s") from error
    reply = _parse(done.stdout)
    if "error" in reply:
        raise WorkError(f"preparing failed: {reply['error']}")
    if done.returncode or "prepared" not in reply:
        raise WorkError(f"preparing failed: {death(done.returncode, log)}")


class Side:
    """A running side; raises WorkError with the reason as soon as it fails or dies."""

    def __init__(self, name: str, work: Work, label_end: LabelEnd, log: Path) -> None:
        self.name, self.work, self.label_end, self.log = name, work, label_end, log
        with log.open("w") as stderr:
            self._process = subprocess.Popen(
                [*_worker(), "serve", name, json.dumps(work.to_json()), label_end],
                cwd=ROOT, env=environment(work.config.threads), text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr,
            )  # fmt: skip
        try:
            self.loaded = self.ask(do="load")
        except BaseException:
            self.close()
            raise

    def output(self) -> NDArray[Any]:
        """What one call gives."""
        path = self.log.with_suffix(".npy")
        self.ask(do="output", path=str(path))
        array: NDArray[Any] = np.load(path)
        path.unlink()
        return array

    def block(self, warmup: int, repeat: int, pause_s: float) -> list[int]:
        """Nanoseconds of the calls of one block; the process runs only meanwhile."""
        samples: list[int] = self.ask(do="block", warmup=warmup, repeat=repeat, pause_s=pause_s)[
            "samples_ns"
        ]
        return samples

    def ask(self, **request: object) -> dict[str, Any]:
        """Continue the process, have one answer, stop it again."""
        process = self._process
        assert process.stdin
        assert process.stdout
        try:
            process.send_signal(signal.SIGCONT)
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
        except (BrokenPipeError, ProcessLookupError) as error:
            raise WorkError(self._death()) from error
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            if not selector.select(REPLY_TIMEOUT_S):
                raise WorkError(f"no answer to {request['do']} in {REPLY_TIMEOUT_S} s")
        line = process.stdout.readline()
        if not line:
            raise WorkError(self._death())
        process.send_signal(signal.SIGSTOP)
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise WorkError(f"{request['do']} failed: {reply['error']}")
        return reply

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        for stream in (self._process.stdin, self._process.stdout):
            if stream:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        self._process.wait()

    def _death(self) -> str:
        return death(self._process.wait(timeout=30), self.log)


def death(code: int, log: Path) -> str:
    """How a process ended, in words, with the last line that it printed."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return f"{how}; last line: {without_folders(lines[-1].strip())[:200]}" if lines else how


def _worker() -> list[str]:
    return [sys.executable, "-m", "benchmarks.peers_lib.worker"]


def _parse(text: str) -> dict[str, Any]:
    lines = text.strip().splitlines()
    try:
        reply = json.loads(lines[-1]) if lines else {}
    except ValueError:
        return {}
    return reply if isinstance(reply, dict) else {}
