"""The runtime of artifacts, beside that of an older version: frames, pauses, callers, loading.

    hmseg-deploy compile -m tiny-hmseg -r 256x512 --threads 2 -o new.hmseg    # here
    git worktree add OLD 1ef3fdc && cd OLD && hmseg-deploy compile ... -o old.hmseg
    python -m benchmarks.runtime --new new.hmseg --old OLD/old.hmseg --old-root OLD [--rounds 9]

Each side is a process that holds one network, the old one with the sources of its own folder; they
take turns, in blocks, after a pause. Then, of the new one alone: the frame after 20 ms of idleness
beside a warm one, two callers with one thread each beside one, 300 callers that come and go, load
and exit in fresh processes. Nothing else should run. --output gets a line of JSON with all of it.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from deploy.cli.console import print_table, run_main
from deploy.host import cpu_model
from deploy.measure.statistics import ratio_of_rounds
from lut.jsonl import append_record

HERE = Path(__file__).parents[1]
# Answers commands, one a line, of what works in both versions.
SIDE = """
import json, sys, time
from deploy.runtime import load
network = load(sys.argv[1], threads=int(sys.argv[2]))
given = network.artifact.golden_input
for line in sys.stdin:
    calls, pause = json.loads(line)
    time.sleep(0.05)
    for _ in range(3):
        network(given)
    found, cpu = [], time.process_time()
    for _ in range(calls):
        time.sleep(pause)
        start = time.perf_counter_ns()
        network(given)
        found.append(time.perf_counter_ns() - start)
    print(json.dumps([found, 1000 * (time.process_time() - cpu) / calls]), flush=True)
"""
CALLERS = """
import json, sys, threading, time
from deploy.runtime import load
network = load(sys.argv[1], threads=1)
given = network.artifact.golden_input

def rate(callers, seconds=1.5):
    counts, stop = [0] * callers, time.monotonic() + seconds
    def work(i):
        while time.monotonic() < stop:
            network(given)
            counts[i] += 1
    threads = [threading.Thread(target=work, args=(i,)) for i in range(callers)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    return sum(counts) / seconds

rate(2, 0.5)
found = [(rate(1), rate(2)) for _ in range(5)]
print(json.dumps([two / one for one, two in found]))
"""
REQUESTS = """
import json, os, sys, threading, time
from deploy.runtime import load
network = load(sys.argv[1], threads=2)
given = network.artifact.golden_input
network(given)
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
before, tasks, times = resident(), len(os.listdir("/proc/self/task")), []
def call():
    start = time.perf_counter()
    network(given)
    times.append(1000 * (time.perf_counter() - start))
for _ in range(300):
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
time.sleep(0.2)
print(json.dumps({"threads_left": len(os.listdir("/proc/self/task")) - tasks,
    "more_mib": resident() - before, "first": sorted(times[:20])[10], "p99": sorted(times)[297],
    "end": time.time()}), flush=True)
"""
LOAD = """
import sys, time
import numpy
start = time.perf_counter()
from deploy.runtime import load
network = load(sys.argv[1])
print(1000 * (time.perf_counter() - start))
"""


class Side:
    """A network in a process of its own."""

    def __init__(self, artifact: Path, root: Path, threads: int) -> None:
        environment = os.environ | {"PYTHONPATH": str(root)}
        environment.pop("TVM_NUM_THREADS", None)
        self._process = subprocess.Popen(
            [sys.executable, "-c", SIDE, str(artifact.resolve()), str(threads)],
            cwd=root, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def frames(self, calls: int, pause_s: float = 0.0) -> tuple[list[int], float]:
        """Nanoseconds of each call, and CPU milliseconds a call."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps([calls, pause_s]) + "\n")
        self._process.stdin.flush()
        times, cpu_ms = json.loads(self._process.stdout.readline())
        return times, cpu_ms

    def close(self) -> None:
        """End it."""
        self._process.communicate()


def compare(new: Path, old: Path, old_root: Path, threads: int, rounds: int) -> dict[str, Any]:
    """Frames of both, in turn; and after pauses."""
    sides = {"new": Side(new, HERE, threads), "old": Side(old, old_root, threads)}
    samples: dict[str, list[list[int]]] = {name: [] for name in sides}
    idle: dict[str, list[float]] = {name: [] for name in sides}
    cpu: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds):
        for name in sorted(sides, reverse=turn % 2 == 1):
            samples[name].append(sides[name].frames(30)[0])
            paused, cpu_ms = sides[name].frames(12, 0.02)
            idle[name].append(median(paused) / median(samples[name][-1]))
            cpu[name].append(cpu_ms)
    for side in sides.values():
        side.close()
    p90 = {name: float(np.percentile(np.concatenate(s), 90)) / 1e6 for name, s in samples.items()}
    ms = {name: float(np.median(np.concatenate(s))) / 1e6 for name, s in samples.items()}
    return {
        "threads": threads, "ms": ms, "p90_ms": p90,
        "ratio": vars(ratio_of_rounds(samples["old"], samples["new"])),
        "idle_over_warm": {name: median(values) for name, values in idle.items()},
        "cpu_ms_after_pauses": {name: median(values) for name, values in cpu.items()},
    }  # fmt: skip


def alone(artifact: Path) -> dict[str, Any]:
    """What is told of the new runtime by itself."""

    def run(code: str) -> tuple[str, float]:
        done = subprocess.run(
            [sys.executable, "-c", code, str(artifact)],
            capture_output=True, text=True, check=True, cwd=HERE,
        )  # fmt: skip
        return done.stdout, time.time()

    requests, ended = run(REQUESTS)
    found = json.loads(requests)
    found["exit_s"] = ended - found.pop("end")
    return {
        "two_callers_over_one": json.loads(run(CALLERS)[0]),
        "requests": found,
        "load_ms": sorted(float(run(LOAD)[0]) for _ in range(7)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--new", type=Path, required=True)
    add("--old", type=Path, required=True)
    add("--old-root", type=Path, required=True, help="The older version's sources.")
    add("--threads", type=int, nargs="+", default=[1, 2])
    add("--rounds", type=int, default=9)
    add("--output", type=Path)
    options = parser.parse_args()
    compared = [
        compare(options.new, options.old, options.old_root, threads, options.rounds)
        for threads in options.threads
    ]
    result = {
        "artifact": options.new.name, "machine": cpu_model(), "compared": compared,
        **alone(options.new.resolve()),
    }  # fmt: skip
    if options.output:
        append_record(options.output, result)
    rows = [
        (
            row["threads"], f"{row['ms']['new']:.2f}", f"{row['ratio']['median']:.3f}",
            f"{row['ratio']['low']:.3f}..{row['ratio']['high']:.3f}",
            f"{row['p90_ms']['old'] / row['p90_ms']['new']:.3f}",
            f"{row['idle_over_warm']['new']:.2f} ({row['idle_over_warm']['old']:.2f})",
            f"{row['cpu_ms_after_pauses']['new']:.1f} ({row['cpu_ms_after_pauses']['old']:.1f})",
        )
        for row in compared
    ]  # fmt: skip
    columns = (
        "threads", "ms", "old / new", "range", "p90 old / new", "after 20 ms / warm (old)",
        "CPU ms a frame (old)",
    )  # fmt: skip
    print_table("", columns, rows)
    print(json.dumps({key: result[key] for key in ("two_callers_over_one", "requests", "load_ms")}))


if __name__ == "__main__":
    run_main(main)
