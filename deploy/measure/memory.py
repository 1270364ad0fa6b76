"""Peak memory of one side, in a process of its own.

    python -m deploy.measure.memory artifact FILE CALLS
    python -m deploy.measure.memory onnx FILE CALLS

prints a JSON object: `base_kib`, resident after the runtime was imported, and `peak_kib`, the
highest resident size until the last call returned.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from lut.errors import WorkError

Side = Literal["artifact", "onnx"]

# A waiting thread of TVM's pool yields its CPU 300,000 times before it sleeps, and is joined only
# then: beside a busy process on that CPU the end of the process took more than seven minutes.
NO_SPINNING = {"TVM_THREAD_POOL_SPIN_COUNT": "0"}


@dataclass(frozen=True)
class PeakMemory:
    """Resident memory in KiB, of the process and of the network in it."""

    base_kib: int
    peak_kib: int

    @property
    def network_kib(self) -> int:
        """What the network added to the bare runtime."""
        return self.peak_kib - self.base_kib


def measure_peak(
    side: Side, path: Path, *, calls: int = 3, threads: int | None = None
) -> PeakMemory:
    """Load `path` and run it on a black image `calls` times in a fresh process.

    Raises WorkError if that process fails.
    """
    command = [sys.executable, "-m", "deploy.measure.memory", side, str(path), str(calls)]
    done = subprocess.run(
        [*command, *([str(threads)] if threads else [])],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | NO_SPINNING,
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1][-300:]
        raise WorkError(f"measuring the memory of {side} failed: {reason}")
    return PeakMemory(**json.loads(done.stdout))


def status_kib(field: str) -> int:
    """A field of /proc/self/status: VmRSS, resident now; VmHWM, the most so far; in KiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    raise WorkError(f"/proc/self/status has no {field}")


def _open_artifact(path: str, threads: int | None) -> tuple[int, Callable[[], object]]:
    from deploy import runtime

    base = status_kib("VmRSS")
    network = runtime.load(path, threads=threads)
    image = np.zeros(network.metadata.input_shape, network.metadata.input_dtype)
    return base, lambda: network(image)


def _open_onnx(path: str, threads: int | None) -> tuple[int, Callable[[], object]]:
    import onnxruntime as ort

    base = status_kib("VmRSS")
    options = ort.SessionOptions()
    if threads:
        options.intra_op_num_threads = threads
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    taken = session.get_inputs()[0]
    image = np.zeros(taken.shape, np.uint8 if taken.type == "tensor(uint8)" else np.float32)
    return base, lambda: session.run(None, {taken.name: image})


def _main(arguments: list[str]) -> None:
    side, path, calls, *rest = arguments
    open_side = _open_artifact if side == "artifact" else _open_onnx
    base, call = open_side(path, int(rest[0]) if rest else None)
    for _ in range(int(calls)):
        call()
    print(json.dumps({"base_kib": base, "peak_kib": status_kib("VmHWM")}))


if __name__ == "__main__":
    _main(sys.argv[1:])
