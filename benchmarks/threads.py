"""Threads: frames with 1, 2 and n, and what it costs to wake them up after a pause.

    python benchmarks/threads.py [--model tiny-mrms] [--resolution 256x512] [--repeat 40]

A stream of frames leaves the threads idle between two of them. For each pause the median time of
the frame after it is printed beside that of frames without a pause, taken in turn in one run. The
pool's spinning before it goes to sleep (TVM_THREAD_POOL_SPIN_COUNT) is compared in fresh processes.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

PAUSES_MS = (0, 1, 5, 20, 50, 200)
SPIN_COUNTS = ("0", "300000", "10000000")  # none, TVM's default, about 10 ms


def measure(artifact: str, threads: int, repeat: int) -> dict[str, float]:
    """Median milliseconds of a frame after each pause."""
    from deploy.runtime import load

    network = load(artifact, threads=threads)
    image = network.artifact.golden.image
    for _ in range(10):
        network(image)
    samples: dict[int, list[float]] = {pause: [] for pause in PAUSES_MS}
    for _ in range(repeat):
        for pause in PAUSES_MS:
            network(image)
            time.sleep(pause / 1000)
            start = time.perf_counter()
            network(image)
            samples[pause].append(1000 * (time.perf_counter() - start))
    return {str(pause): float(np.median(values)) for pause, values in samples.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="tiny-mrms")
    parser.add_argument("--resolution", default="256x512")
    parser.add_argument("--repeat", type=int, default=40)
    parser.add_argument("--child", nargs=2, metavar=("ARTIFACT", "THREADS"))
    arguments = parser.parse_args()
    if arguments.child:
        path, threads = arguments.child
        print(json.dumps(measure(path, int(threads), arguments.repeat)))
        return
    import tempfile

    from deploy.artifact import save_artifact
    from deploy.build import build_artifact
    from deploy.resolution import parse_resolution
    from deploy.source import open_source
    from deploy.targets import resolve_target

    source = open_source(arguments.model, resolution=parse_resolution(arguments.resolution))
    cores = len(os.sched_getaffinity(0))
    print("ms of the frame after a pause of", *(f"{p} ms" for p in PAUSES_MS), sep="\t")
    with tempfile.TemporaryDirectory() as folder:
        for threads in sorted({1, 2, cores}):
            artifact, _ = build_artifact(source.graph, resolve_target("cpu"), threads=threads)
            path = Path(folder) / f"{threads}.hmseg"
            save_artifact(artifact, path)
            for spin in SPIN_COUNTS:
                done = subprocess.run(
                    [
                        sys.executable, __file__, "--repeat", str(arguments.repeat),
                        "--child", str(path), str(threads),
                    ],
                    env={**os.environ, "TVM_THREAD_POOL_SPIN_COUNT": spin},
                    capture_output=True, text=True, check=True,
                )  # fmt: skip
                row = json.loads(done.stdout)
                print(
                    f"{threads} threads, spin count {spin}",
                    *(f"{row[str(pause)]:.2f}" for pause in PAUSES_MS),
                    sep="\t",
                )


if __name__ == "__main__":
    main()
