"""Threads: frames with 1, 2 and n, bound to cores or not, and what waking them up costs.

    hmseg-deploy compile -m tiny-mrms --threads 2 -o tiny.hmseg
    python benchmarks/threads.py tiny.hmseg [--threads 1 2] [--rounds 3] [--repeat 6]

A stream of frames leaves the threads idle between two of them. For each pause the median time of
the frame after it is printed, and the CPU time that the process took per frame: a pool that spins
instead of sleeping (TVM_THREAD_POOL_SPIN_COUNT, yields before it goes to sleep) keeps its cores
busy. Every setting runs in a process of its own, the settings in turn, all pauses in turn within
it. What a pause costs with one thread is not the pool's: caches and clocks.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from deploy.cli.console import run_main

PAUSES_MS = (0, 1, 5, 20, 50, 200)
SPIN, BIND = "TVM_THREAD_POOL_SPIN_COUNT", "TVM_BIND_THREADS"
SETTINGS: dict[str, dict[str, str]] = {
    "TVM's defaults": {},
    "threads not bound to cores": {BIND: "0"},
    "no spinning": {SPIN: "0"},
    "spin count 3000": {SPIN: "3000"},
    "spin count 3000000": {SPIN: "3000000"},
}


def measure(artifact: str, threads: int, repeat: int) -> dict[str, object]:
    """Milliseconds of the frames after each pause, and of CPU time per frame."""
    from deploy.runtime import load

    network = load(artifact, threads=threads)
    given = network.artifact.golden_input
    for _ in range(10):
        network(given)
    samples: dict[int, list[float]] = {pause: [] for pause in PAUSES_MS}
    cpu = time.process_time()
    for _ in range(repeat):
        for pause in PAUSES_MS:
            network(given)
            time.sleep(pause / 1000)
            start = time.perf_counter()
            network(given)
            samples[pause].append(1000 * (time.perf_counter() - start))
    frames = 2 * repeat * len(PAUSES_MS)
    return {"ms": list(samples.values()), "cpu_ms": 1000 * (time.process_time() - cpu) / frames}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("artifact", type=Path)
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, 2, cores}))
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--repeat", type=int, default=6)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(measure(str(arguments.artifact), arguments.child, arguments.repeat)))
        return
    rows = [
        (threads, name)
        for threads in arguments.threads
        for name in (arguments.settings if threads > 1 else list(SETTINGS)[:1])
    ]
    found: dict[tuple[int, str], list[dict[str, object]]] = {row: [] for row in rows}
    for _ in range(arguments.rounds):
        for threads, name in rows:
            done = subprocess.run(
                [
                    sys.executable, __file__, str(arguments.artifact),
                    "--repeat", str(arguments.repeat), "--child", str(threads),
                ],
                env={**os.environ, **SETTINGS[name]}, stdout=subprocess.PIPE, text=True, check=True,
            )  # fmt: skip
            found[threads, name].append(json.loads(done.stdout))
    print("median ms of the frame after a pause of", end="\t")
    print(*(f"{p} ms" for p in PAUSES_MS), "CPU ms a frame", sep="\t")
    for (threads, name), runs in found.items():
        medians = np.median(np.concatenate([run["ms"] for run in runs], axis=1), axis=1)
        cpu = np.median([run["cpu_ms"] for run in runs])
        print(f"{threads} threads, {name}", end="\t")
        print(*(f"{value:.2f}" for value in medians), f"{cpu:.1f}", sep="\t")


if __name__ == "__main__":
    run_main(main)
