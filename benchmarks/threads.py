"""Threads: frames with 1, 2 and n, bound to cores or not, and what waking them up costs.

    hmseg-deploy compile -m tiny-mrms -o tiny.hmseg
    python benchmarks/threads.py tiny.hmseg [--threads 1 2] [--repeat 20]

A stream of frames leaves the threads idle between two of them. For each pause the median time of
the frame after it is printed, all pauses in turn in one process; each row is a process of its own.
What a pause costs with one thread is not the pool's: caches and clocks. `keep awake` is the option
of `deploy.runtime.load`.
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
KEEP_AWAKE_MS = (None, 0.0, 10.0, 50.0)
BINDINGS = {"1": "bound to cores", "0": "not bound"}  # TVM_BIND_THREADS


def measure(artifact: str, threads: int, keep_awake_ms: float | None, repeat: int) -> list[float]:
    """Median milliseconds of a frame after each pause."""
    from deploy.runtime import load

    network = load(artifact, threads=threads, keep_awake_ms=keep_awake_ms)
    given = network.artifact.golden_input
    for _ in range(10):
        network(given)
    samples: dict[int, list[float]] = {pause: [] for pause in PAUSES_MS}
    for _ in range(repeat):
        for pause in PAUSES_MS:
            network(given)
            time.sleep(pause / 1000)
            start = time.perf_counter()
            network(given)
            samples[pause].append(1000 * (time.perf_counter() - start))
    return [float(np.median(values)) for values in samples.values()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("artifact", type=Path)
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, 2, cores}))
    parser.add_argument("--repeat", type=int, default=20)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        options = json.loads(arguments.child)
        print(json.dumps(measure(str(arguments.artifact), **options, repeat=arguments.repeat)))
        return
    print("ms of the frame after a pause of", *(f"{p} ms" for p in PAUSES_MS), sep="\t")
    for threads in arguments.threads:
        for keep_awake_ms in KEEP_AWAKE_MS if threads > 1 else (None,):
            for bind, words in BINDINGS.items():
                if bind == "0" and keep_awake_ms is not None:
                    continue
                options = {"threads": threads, "keep_awake_ms": keep_awake_ms}
                done = subprocess.run(
                    [
                        sys.executable, __file__, str(arguments.artifact),
                        "--repeat", str(arguments.repeat), "--child", json.dumps(options),
                    ],
                    env={**os.environ, "TVM_BIND_THREADS": bind},
                    stdout=subprocess.PIPE, text=True, check=True,
                )  # fmt: skip
                kept = "TVM's spinning" if keep_awake_ms is None else f"{keep_awake_ms:g} ms"
                print(
                    f"{threads} threads, {words}, keep awake: {kept}",
                    *(f"{value:.2f}" for value in json.loads(done.stdout)),
                    sep="\t",
                    flush=True,
                )


if __name__ == "__main__":
    main()
