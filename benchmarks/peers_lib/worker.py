"""The process of one side.

    python -m benchmarks.peers_lib.worker prepare NAME WORK
    python -m benchmarks.peers_lib.worker serve NAME WORK LABEL_END

WORK is `Work.to_json`. `serve` answers requests, a JSON object a line: load, output, value,
block. What runtimes print goes to stderr.
"""

import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from benchmarks.peers_lib.adapters import Call, load_adapter
from benchmarks.peers_lib.job import Work, without_folders
from deploy.measure.interleave import Protocol, interleave
from deploy.measure.memory import status_kib

MEMORY_CALLS = 3
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def prepare(name: str, work: Work) -> None:
    """Convert or compile into the work's folder."""
    work.folder.mkdir(parents=True, exist_ok=True)
    load_adapter(name).prepare(work)


class Server:
    """Holds the loaded network and answers requests about it."""

    def __init__(self, name: str, work: Work, label_end: str) -> None:
        self.adapter, self.name, self.work, self.label_end = (
            load_adapter(name),
            name,
            work,
            label_end,
        )
        self.call: Call | None = None

    def load(self) -> dict[str, Any]:
        """Import the runtime, load the network and run it once."""
        self.adapter.load_runtime(self.work.config.threads)
        base = status_kib("VmRSS")
        opened = self.adapter.open_network(self.work)
        self.call = opened
        if self.label_end == "numpy":
            self.call = lambda: opened().argmax(0)
        elif self.label_end == "torch":
            import torch

            self.call = lambda: torch.from_numpy(opened()).argmax(0).numpy()
        for _ in range(MEMORY_CALLS):
            self.call()
        peak = status_kib("VmHWM")
        return {"base_kib": base, "peak_kib": peak}

    def output(self, path: str) -> dict[str, Any]:
        """Run once and keep what came out."""
        assert self.call
        np.save(path, self.call())
        return {}

    def value(self) -> dict[str, Any]:
        """What one call gives, a number."""
        assert self.call
        return {"value": float(self.call())}

    def block(self, warmup: int, repeat: int, pause_s: float) -> dict[str, Any]:
        """One block of calls by the timing protocol: nanoseconds of each."""
        assert self.call
        protocol = Protocol(warmup=warmup, repeat=repeat, rounds=1, pause_s=pause_s)
        return {"samples_ns": interleave({self.name: self.call}, protocol)[self.name][0]}


def serve(server: Server, requests: TextIO, replies: TextIO) -> None:
    """Answer until the requests end; an error is an answer too."""
    actions: dict[str, Callable[..., dict[str, Any]]] = {
        "load": server.load,
        "output": server.output,
        "value": server.value,
        "block": server.block,
    }
    for line in requests:
        request = json.loads(line)
        try:
            reply = actions[request.pop("do")](**request)
        except Exception as error:  # whatever a runtime raises is the reason that is reported
            reply = {"error": describe(error)}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


def describe(error: Exception) -> str:
    """One line for the table of peers that did not run."""
    return without_folders(f"{type(error).__name__}: {' '.join(str(error).split())}")[:300]


def die_with_parent() -> None:
    """Linux ends this process when its parent is killed: a stopped one would stay for ever."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main(command: str, name: str, work: str, label_end: str = "graph") -> int:
    """Returns the exit code."""
    die_with_parent()
    parsed = Work.from_json(json.loads(work))
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if command == "serve":
        serve(Server(name, parsed, label_end), sys.stdin, replies)
        return 0
    try:
        prepare(name, parsed)
    except Exception as error:
        print(json.dumps({"error": describe(error)}), file=replies, flush=True)
        return 1
    print(json.dumps({"prepared": str(Path(parsed.folder))}), file=replies, flush=True)
    return 0


if __name__ == "__main__":
    code = main(*sys.argv[1:])
    sys.stdout.flush()
    # Some runtimes crash while Python takes them down; what was asked for is done and on disk.
    os._exit(code)
