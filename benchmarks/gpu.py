"""Parity on the device, latency beside every peer that runs there, and each kernel's time.

    benchmarks/gpu.sh [--models tiny-mrms mrms] [--resolutions 256x512 ...] [--minutes 8]
        [--table-minutes 2.5] [--precision fp16] [--tune-seconds 10] [-o DIR]

For each network and size: schedules are tuned for `--tune-seconds` (0: not), going on from the
records of earlier runs in the user's folder; the artifact is compiled with them for this machine's
own GPU and gated on it (five images against onnxruntime); frames from uint8 image to labels are
timed in turn with torch eager, torch.compile, onnxruntime's CUDA provider and TensorRT, as far as
they are installed; the GPU's own events split upload, compute and download; every kernel is timed
alone. `memory_floor_ms` is what the frame's kernels would take if each read and wrote its arguments
once at the bandwidth that a copy of 256 MB on this GPU reaches (read and written bytes counted).
`--precision fp16` is of our network alone; the others compute in fp32. `--table-minutes` (0: none)
are for the GPU's latency table (`benchmarks/gpu_table.py`): the last ones, or the first where there
is one that was not finished, before tuning changes the schedules that it is of. Results go to
DIR/gpu-NAME.json (gpu-NAME-fp16.json) with what they were measured on. What the minutes do not
suffice for is named as left out.
"""

import argparse
import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deploy.precision import PRECISIONS
from lut.errors import HmsegError
from lut.files import write_atomic

if TYPE_CHECKING:
    import onnx

    from deploy.gpu.driver import Driver
    from deploy.targets import Target

MODELS = ("tiny-mrms", "mrms")
RESOLUTIONS = ("256x512", "512x1024", "768x1536", "1024x2048")
PACKAGES = ("hmseg", "apache-tvm", "torch", "onnxruntime", "onnxruntime-gpu", "tensorrt", "numpy")
PROFILED_FRAMES = 20
COPIED_BYTES = 256 << 20


def measure(
    model: str, size: str, capability: int, bytes_per_ms: float, options: argparse.Namespace
) -> dict[str, Any]:
    from deploy.build import build_artifact
    from deploy.gpu.bench import bench_gpu
    from deploy.gpu.network import GpuNetwork
    from deploy.measure.interleave import Protocol
    from deploy.resolution import parse_resolution
    from deploy.source import open_source
    from deploy.targets import resolve_target

    source = open_source(model, resolution=parse_resolution(size))
    target = resolve_target("cuda", f"sm_{capability}", options.precision)
    tuning = tune(source.graph, target, options.tune_seconds)
    start = time.perf_counter()
    artifact, comparisons = build_artifact(source.graph, target, threads=1)
    compiled_s = time.perf_counter() - start
    image = artifact.golden.image
    repeat = options.repeat
    protocol = Protocol(warmup=min(10, repeat), repeat=repeat, rounds=options.rounds)
    result = bench_gpu(artifact, source.graph, source.network, image, protocol)
    times = GpuNetwork(artifact).time_kernels(image, min(PROFILED_FRAMES, repeat))
    assert artifact.gpu is not None
    moved = sum(
        region.size
        for launch in artifact.gpu.plan.entries["main"].launches
        for region in launch.arguments
    )
    return {
        "model": model,
        "resolution": size,
        "tuning": tuning,
        "compile_and_gate_s": round(compiled_s, 2),
        "parity": [comparison.to_json() for comparison in comparisons],
        **result.to_json(),
        "kernels_ms": [[name, float(np.median(samples))] for name, samples in times],
        "memory_floor_ms": moved / bytes_per_ms,
    }


def tune(graph: "onnx.ModelProto", target: "Target", seconds: float) -> dict[str, Any]:
    """Tune into the user's folder, from which `build_artifact` takes what wins."""
    from deploy.gpu.tune import tune_on_gpu
    from deploy.tuning.records import NO_THREADS, default_folder, tuned_schedules

    start = time.perf_counter()
    records = 0
    if seconds > 0:
        records = len(
            tune_on_gpu(graph, target, default_folder(), trials=sys.maxsize, seconds=seconds)
        )
    return {
        "seconds": round(time.perf_counter() - start, 2),
        "records": records,
        "schedules": tuned_schedules(target, NO_THREADS),
    }


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


def provenance(device: dict[str, Any]) -> dict[str, Any]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": "benchmarks/gpu.sh " + " ".join(sys.argv[1:]),
        "commit": done.stdout.strip(),
        "versions": versions,
        **device,
    }


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def run(options: argparse.Namespace) -> None:
    from benchmarks.gpu_table import measure_table, table_path
    from deploy.gpu.driver import Driver

    driver = Driver()
    device: dict[str, Any] = {
        "gpu": driver.name,
        "precision": options.precision,
        "capability": driver.capability,
        "driver_cuda": driver.version,
    }
    bytes_per_ms = copy_bytes_per_ms(driver, COPIED_BYTES)
    device["copy_gb_per_s"] = bytes_per_ms / 1e6
    name = "-".join(driver.name.lower().split()) + "-fp16" * (options.precision == "fp16")
    table_s, table, path = 60 * options.table_minutes, None, table_path(options.out, name)
    begin = time.monotonic()
    end_of_rows = end = begin + 60 * options.minutes
    if table_s > 0 and path.exists():
        table = measure_table(options.precision, path, begin + table_s)
    elif table_s > 0:
        end_of_rows -= table_s
    rows, left, longest = [], [], 0.0
    for model in options.models:
        for size in options.resolutions:
            if time.monotonic() + longest > end_of_rows:
                left.append(f"{model} {size}, the time was up")
                continue
            start = time.monotonic()
            row = measure(model, size, driver.capability, bytes_per_ms, options)
            longest = max(longest, time.monotonic() - start)
            rows.append(row)
            median = row["latency"]["hmseg"]["median_ms"]
            ratios = ", ".join(f"{n} {r['median']:.2f}x" for n, r in row["ratios"].items())
            say(f"{model} {size}: {median:.3f} ms ({ratios or 'no peer runs here'})")
    if table_s > 0:
        table = table or measure_table(options.precision, path, end)
        left += [table["left_out"]] if table["left_out"] else []
    for what in left:
        say(f"left out: {what}")
    result = {"provenance": provenance(device), "rows": rows, "table": table, "left_out": left}
    path = options.out / f"gpu-{name}.json"
    write_atomic(path, json.dumps(result, indent=1).encode())
    print(path)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--resolutions", nargs="+", default=RESOLUTIONS)
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--table-minutes", type=float, default=2.5)
    parser.add_argument("--tune-seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeat", type=int, default=50)
    parser.add_argument("-o", "--out", type=Path, default=Path("benchmarks/results"))
    try:
        run(parser.parse_args(arguments))
    except HmsegError as error:
        say(f"error: {error}")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
