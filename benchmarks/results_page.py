"""docs/results.md: one page of tables, written from the files in benchmarks/results/.

    python -m benchmarks.results_page           # writes the page
    python -m benchmarks.results_page --check   # exit code 1 where it differs from the files

A new result needs a file and a place in `TOPICS`. A file in `benchmarks/results/tables/` is a table
already: named in a topic's `kept`, it is shown as it is. Any other gets a function in
`benchmarks/results_lib/` that makes tables of it, and what it does not say of itself (command,
machine, versions, date) stands in `benchmarks/results/sources.json`.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.results_lib import (
    any_network,
    compiling,
    cpu,
    gpu,
    latency,
    own_files,
    precision,
    quantisation,
    runtime,
    search,
    training,
)
from benchmarks.results_lib.store import ROOT, Store, kept
from benchmarks.results_lib.table import Table, markdown
from lut.errors import HmsegError, UserError
from lut.files import read_file, write_atomic

PAGE = ROOT / "docs" / "results.md"
COMMAND = "python -m benchmarks.results_page"


@dataclass(frozen=True)
class Topic:
    """A section of the page: its tables in order, and the pages of docs/log/ with the story."""

    title: str
    tables: Sequence[Callable[[Store], list[Table]]]
    log: Sequence[str] = ()


TOPICS = (
    Topic(
        "Parity",
        [cpu.parity, own_files.own_files, kept("precision-miou"), quantisation.quantisation],
    ),
    Topic(
        "The first command",
        [kept("first-command")],
        ["2026-11-22-cpu-speed.md", "2026-11-30-first-hour.md"],
    ),
    Topic(
        "Speed on a CPU",
        [
            any_network.any_network,
            precision.precision,
            runtime.runtime,
            cpu.peers,
            kept("linearity", "profile", "tuning"),
        ],
        [
            "2026-11-22-cpu-speed.md",
            "2026-11-30-xeon-networks.md",
            "2026-11-30-dense.md",
            "2026-11-30-products.md",
        ],
    ),
    Topic("Kernels", [cpu.kernels], ["2026-11-30-int8.md"]),
    Topic(
        "Time of compiling",
        [compiling.cached, kept("compile", "compile-gpu"), quantisation.compiling],
        ["2026-11-22-cpu-speed.md"],
    ),
    Topic(
        "Latency table",
        [latency.tables, latency.checks, kept("estimates"), latency.robustness],
        ["2026-11-22-latency-tables.md"],
    ),
    Topic("Code for GPUs", [gpu.frames], ["2026-11-28-h100-frames.md"]),
    Topic(
        "Training on CamVid",
        [
            training.weights,
            training.runs,
            kept("own-files", "grid-limit", "grid-fitted", "trainer-speed"),
        ],
        [
            "2026-11-23-training.md",
            "2026-11-28-training-h100.md",
            "2026-11-30-pretrained.md",
            "2026-12-01-teacher.md",
        ],
    ),
    Topic("Short equal schedules", [training.table4, training.options], ["2026-11-23-training.md"]),
    Topic(
        "Search",
        [kept("tiny-hmseg"), search.searches, kept("models"), search.compared, search.table6],
        ["2026-11-23-search.md", "2026-11-23-search-compared.md", "2026-11-28-searches.md"],
    ),
)

INTRO = f"""# Results

Written by `{COMMAND}` from the files in
[`benchmarks/results/`](../benchmarks/results/); do not edit it by hand. Under each table stands
what measured it. What was tried, what was missed and why: [log/](log/README.md).

Speeds are ratios measured in one run, the sides in turn, with their range over the rounds: these
are shared, virtual machines. The machines, each with its versions:
"""


def page(store: Store) -> str:
    """The whole page; raises UserError for a file with something missing, and for a table of
    `tables/` that no topic shows."""
    shown = {
        name for topic in TOPICS for part in topic.tables for name in getattr(part, "names", ())
    }
    if hidden := sorted(set(store.tables()) - shown):
        raise UserError(f"no topic of benchmarks/results_page.py shows the table {hidden[0]!r}")
    machines = [
        f"- {name}: {machine['about']}; {', '.join(map(' '.join, machine['versions'].items()))}"
        for name, machine in store.machines.items()
    ]
    parts = [INTRO, "\n".join(machines)]
    for topic in TOPICS:
        links = ", ".join(f"[{Path(log).stem}](log/{log})" for log in topic.log)
        parts.append(f"## {topic.title}" + (f"\n\nThe story: {links}." if links else ""))
        parts += [markdown(table) for tables in topic.tables for table in tables(store)]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 0 done, 1 the page differs, 2 a file is not as it should be."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    parser.add_argument("-o", "--out", type=Path, default=PAGE)
    options = parser.parse_args(arguments)
    try:
        text = page(Store())
        if not options.check:
            write_atomic(options.out, text)
        elif read_file(options.out).decode() != text:
            print(f"{options.out} differs from benchmarks/results/: run {COMMAND}", file=sys.stderr)
            return 1
    except HmsegError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
