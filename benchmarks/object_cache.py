"""What the object cache saves: lowering, machine code and linking, with it and without.

    python -m benchmarks.object_cache [--networks tiny-hmseg mrms] [--rounds 3]

For this machine's CPU, 256x512, 19 classes, in this order:

- `without`: no cache, as with --no-cache;
- `first`: into an empty cache;
- `again`: the same once more;
- `classes`: 11 classes;
- `size`: 256x544.

Each in a process of its own that has imported everything and exported the graph before the clock
starts, as the step "compiling" of ``hmseg-deploy compile`` has; the parity gate, which that step
has too, is not in it. `CPU s` is of the process and of those it starts, on all cores together: less
than half the seconds on a machine that does other work too. `compiled` are the kernels that were
not in the cache. The fastest of the rounds counts, as what else the machine does only adds; the
slowest is beside it.
"""

import argparse
import json
import os
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

from deploy import host
from deploy.cli.console import run_main
from deploy.graph.job import Job
from lut.files import check_writable, write_atomic

RESULTS = Path(__file__).parent / "results" / "object-cache.json"
NETWORKS = ("tiny-hmseg", "mrms")
SIZE, CLASSES = "256x512", 19
TOOLS = ("hmseg", "torch", "apache-tvm", "apache-tvm-ffi")
CASES = {
    "without": (SIZE, CLASSES),
    "first": (SIZE, CLASSES),
    "again": (SIZE, CLASSES),
    "classes": (SIZE, 11),
    "size": ("256x544", CLASSES),
}


Found: TypeAlias = dict[str, Any]  # what one compilation came to


def cpu_seconds() -> float:
    """Of this process and of those that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def compile_once(network: str, size: str, classes: int, folder: Path | None) -> Found:
    """One compilation in this process; without a cache where there is no folder."""
    import tvm  # noqa: F401 - imported before the clock starts

    from deploy.backends.cpu import link_library
    from deploy.cpu.pipeline import compile_graph, make_kernels
    from deploy.graph.export import export_network
    from deploy.object_cache import ObjectCache
    from deploy.resolution import parse_resolution
    from deploy.targets import resolve_target
    from hmseg.zoo import create_model

    model = create_model(network, num_classes=classes)
    graph = export_network(model, network, parse_resolution(size), num_classes=classes)
    target, threads = resolve_target("cpu"), len(os.sched_getaffinity(0))
    cache = None if folder is None else ObjectCache(folder)
    before = 0 if cache is None else cache.usage().entries
    start, cpu = time.perf_counter(), cpu_seconds()
    kernels = make_kernels(target, threads, {})
    compiled = compile_graph(Job(graph, target, kernels, cache=cache))
    library = link_library(compiled, graph.ByteSize())
    seconds, cpu = time.perf_counter() - start, cpu_seconds() - cpu
    new = len(compiled.objects) if cache is None else cache.usage().entries - before
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "kernels": len(compiled.objects),
        "compiled": new,
        "library_bytes": len(library),
        "cache_bytes": 0 if cache is None else cache.usage().bytes,
    }


def measure(networks: list[str], rounds: int) -> dict[str, dict[str, list[Found]]]:
    """By network and case, what each round found; the rounds one after the other."""
    found: dict[str, dict[str, list[Found]]] = {
        network: {case: [] for case in CASES} for network in networks
    }
    for _ in range(rounds):
        for network in networks:
            with tempfile.TemporaryDirectory(prefix="hmseg-") as folder:
                for case, (size, classes) in CASES.items():
                    where = "" if case == "without" else folder
                    command = [network, size, str(classes), where]
                    done = subprocess.run(
                        [sys.executable, "-m", "benchmarks.object_cache", "--one", *command],
                        stdout=subprocess.PIPE, text=True, check=True,
                    )  # fmt: skip
                    found[network][case].append(json.loads(done.stdout.splitlines()[-1]))
    return found


def table(found: dict[str, dict[str, list[Found]]]) -> list[str]:
    """Markdown."""
    rows = ["| network | | s [slowest] | CPU s | kernels | compiled |", "|---|---|---|---|---|---|"]
    for network, cases in found.items():
        for case, runs in cases.items():
            seconds = [run["seconds"] for run in runs]
            cpu = min(run["cpu_seconds"] for run in runs)
            rows.append(
                f"| {network} | {case} | {min(seconds):.2f} [{max(seconds):.2f}] | {cpu:.2f} | "
                f"{runs[0]['kernels']} | {runs[0]['compiled']} |"
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, default=RESULTS, help=f"where to write ({RESULTS})")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        network, size, classes, folder = options.one
        found = compile_once(network, size, int(classes), Path(folder) if folder else None)
        print(json.dumps(found))
        return
    check_writable(options.json)
    found = measure(options.networks, options.rounds)
    result = {
        "command": shlex.join(["python", "-m", "benchmarks.object_cache", *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": host.cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "versions": {tool: version(tool) for tool in TOOLS},
        "found": found,
    }
    write_atomic(options.json, json.dumps(result, indent=1) + "\n")
    print(f"{host.cpu_model()}, {len(os.sched_getaffinity(0))} cores")
    print("\n".join(table(found)))


if __name__ == "__main__":
    run_main(main)
