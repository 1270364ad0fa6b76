"""One network at one size on this machine's GPU: tuned, compiled, gated, timed beside its peers."""

import argparse
import fcntl
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lut.errors import HmsegError
from lut.files import file_digest

if TYPE_CHECKING:
    import onnx

    from deploy.artifact import Artifact
    from deploy.gpu.driver import Driver
    from deploy.target import Target
    from deploy.verify import Comparison

PROFILED_FRAMES, DROPPED_FRAMES = 20, 5
COPIED_BYTES = 256 << 20


@contextmanager
def turn(lock: Path | None) -> Iterator[Callable[[], None]]:
    """While it is entered, others on the same file may use the GPU too, until what it gives is
    called: that waits until none of them does, and keeps them off it to the end. Without a file
    there are no others."""
    if lock is None:
        yield lambda: None
        return
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        # This gives up the share before it waits: two do not wait for each other.
        yield lambda: fcntl.flock(file, fcntl.LOCK_EX)


def try_row(
    model: str,
    size: str,
    capability: int,
    options: argparse.Namespace,
    end: float,
    lock: Path | None = None,
) -> dict[str, Any] | str:
    """A row, or why there is none: whatever it runs into, torch's and onnxruntime's own errors too,
    is of this row alone."""
    try:
        with turn(lock) as alone:
            return measure_row(model, size, capability, options, end, alone)
    except Exception as error:
        line = next((line for line in str(error).splitlines() if line.strip()), "")[:300]
        return line if isinstance(error, HmsegError) else f"{type(error).__name__}: {line}"


def measure_row(
    model: str,
    size: str,
    capability: int,
    options: argparse.Namespace,
    end: float,
    alone: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """A row of the results; tuning stops where `time.monotonic` passes `end`. `alone` is called
    when it is built and gated, before anything is timed. Raises what compiling and running do."""
    from deploy.bench import bench
    from deploy.gpu.driver import Driver
    from deploy.gpu.network import GpuNetwork
    from deploy.gpu.program import GpuProgram
    from deploy.graph.source import open_source
    from deploy.measure.interleave import Protocol
    from deploy.resolution import parse_resolution
    from deploy.targets import resolve_target

    source = open_source(model, resolution=parse_resolution(size))
    target = resolve_target("cuda", f"sm_{capability}", options.precision)
    tune_s = min(options.tune_seconds, end - time.monotonic())
    artifact, comparisons, building = tune_and_build(source.graph, target, tune_s)
    image = artifact.golden.image
    repeat = options.repeat
    protocol = Protocol(warmup=min(10, repeat), repeat=repeat, rounds=options.rounds)
    alone()  # from here on: peers time their own kernels too, as they start
    result = bench(artifact, source, image, protocol, threads=1)
    driver = Driver()
    bytes_per_ms = copy_bytes_per_ms(driver, COPIED_BYTES)
    assert isinstance(artifact.code, GpuProgram)
    network = GpuNetwork(artifact.code, artifact.metadata, driver)
    network.warm_up(image)
    times = network.time_kernels(image, DROPPED_FRAMES + min(PROFILED_FRAMES, repeat))
    moved = sum(
        region.size
        for launch in artifact.code.plan.entries["main"].launches
        for region in launch.arguments
    )
    said, floor_ms = result.to_json(), moved / bytes_per_ms
    said["parts_ms"] = {f"{part}_ms": ms for part, ms in result.parts_ms.items()}
    return {
        "model": model,
        "model_file": model_digest(model),
        "resolution": size,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "jobs": options.jobs,
        **building,
        "parity": [comparison.to_json() for comparison in comparisons],
        **said,
        "kernels_ms": [[name, float(np.median(ms[DROPPED_FRAMES:]))] for name, ms in times],
        "memory_floor_ms": floor_ms,
        "compute_over_floor": result.parts_ms["compute"] / floor_ms,
        "copy_gb_per_s": bytes_per_ms / 1e6,
    }


def tune_and_build(
    graph: "onnx.ModelProto", target: "Target", seconds: float
) -> tuple["Artifact", "list[Comparison]", dict[str, Any]]:
    """Tune into the user's folder and compile with what wins, here and before; where nothing does,
    what is built is the network that tuning began with."""
    from deploy.backends import backend_of
    from deploy.build import build_artifact
    from deploy.tuning.records import default_folder, tuned_schedules
    from deploy.tuning.tune import Limits, tune

    start = time.perf_counter()
    built, records = None, 0
    if seconds > 0:
        built = build_artifact(graph, target, threads=1, measured={})
        compiled_s = time.perf_counter() - start
        limits = Limits(sys.maxsize, seconds=seconds)
        records = len(tune(graph, target, default_folder(), built[0], limits, threads=1))
    tuned_s = time.perf_counter() - start
    backend = backend_of(target)
    key = target.key, backend.record_threads(1), backend.kernels_version
    schedules = tuned_schedules(*key)
    # The texts of the rule's kernels are those of the tuned ones: a schedule changes no spec.
    if built is None or any(kernel.spec in schedules for kernel in built[0].kernels):
        begin = time.perf_counter()
        built = build_artifact(graph, target, threads=1)
        compiled_s = time.perf_counter() - begin
    tuning = {"seconds": round(tuned_s, 2), "records": records, "schedules": schedules}
    return *built, {"tuning": tuning, "compile_and_gate_s": round(compiled_s, 2)}


def model_digest(model: str) -> str:
    """Of a user's ONNX file; empty for a name of the zoo."""
    path = Path(model)
    return file_digest(path)[:16] if path.is_file() else ""


def copy_bytes_per_ms(driver: "Driver", size: int, repeat: int = 10) -> float:
    """Bytes read and written per millisecond by the best of a few copies within the GPU."""
    source, target = driver.allocate(size), driver.allocate(size)
    stream = driver.handle("cuStreamCreate", 1)
    start, stop = (driver.handle("cuEventCreate", 0) for _ in range(2))
    best = float("inf")
    for _ in range(repeat):
        driver.call("cuEventRecord", start, stream)
        driver.call("cuMemcpyDtoDAsync_v2", target, source, size, stream)
        driver.call("cuEventRecord", stop, stream)
        driver.call("cuEventSynchronize", stop)
        best = min(best, driver.milliseconds(start, stop))
    for address in (source, target):
        driver.call("cuMemFree_v2", address)
    return 2 * size / best
