"""Our binary beside every runtime that a user would pick instead, on this CPU.

    python -m benchmarks.peers                      # the whole matrix; goes on where it was killed
    python -m benchmarks.peers --models tiny-mrms --resolutions 256x512 --threads 2
    python -m benchmarks.peers --prepare            # conversions only, nothing is timed
    python -m benchmarks.peers --jobs float-logits  # from the normalised tensor to the logits
    python -m benchmarks.peers --report             # tables and plots of what was measured

Same folded graph, same threads, fp32, the same image. Every side runs in a process of its own and
is stopped while another is timed; blocks of calls take turns (deploy.measure.interleave), an FMA
probe before each tells a slow phase of the machine. Times include every copy from the numpy
input to the numpy output. Each peer is checked against onnxruntime first; one that cannot run is
named with the reason. Needs the extra `peers` (docs/guides/peers.md).
"""

import argparse
import os
import platform
import shlex
import sys
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.peers_lib import report
from benchmarks.peers_lib.adapters import PEERS, deploy_digest
from benchmarks.peers_lib.job import JOBS, Config
from benchmarks.peers_lib.results import (
    append_record,
    default_path,
    is_done,
    latest,
    read_records,
)
from benchmarks.peers_lib.run import Runner, Timing
from deploy import host
from lut.errors import HmsegError, UserError
from lut.files import write_atomic

MODELS = ["tiny-hmseg", "tiny-mrms", "mrms"]  # and tiny-mrms-camvid, the released weights
RESOLUTIONS = ["256x512", "512x1024", "768x1536", "1024x2048"]


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 0 done, 1 the work failed, 2 the user's mistake."""
    options = _parser().parse_args(arguments)
    try:
        _run(options)
    except HmsegError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _run(options: argparse.Namespace) -> None:
    path = options.output or default_path(host.cpu_model())
    if options.report:
        _report(path, options.plot)
        return
    unknown = set(options.peers) - set(PEERS)
    if unknown:
        raise UserError(f"unknown peers {sorted(unknown)}; there are {', '.join(PEERS)}")
    timing = Timing(
        rounds=options.rounds, warmup=options.warmup, block_s=options.block, pause_s=options.pause
    )
    runner = Runner(options.cache, timing, _say)
    configs = [
        Config(model, size, threads, job)
        for model, size, threads, job in product(
            options.models, options.resolutions, options.threads, options.jobs
        )
    ]
    for config in configs:
        assert config.size  # raises UserError for a malformed one before long work
        if options.prepare:
            for name, reason in runner.prepare_all(config, options.peers).items():
                print(f"{config}: {name} cannot run: {reason}", flush=True)
            continue
        provenance = _provenance()
        wanted = provenance | {
            "requested": sorted(options.peers), "protocol": vars(timing),
        }  # fmt: skip
        if not options.again and is_done(latest(read_records(path)).get(config), wanted):
            _say(f"{config}: measured already")
            continue
        record = runner.run(config, options.peers) | provenance
        append_record(path, record)
        print(report.detail(record, read_records(path)), end="\n\n", flush=True)
    if not options.prepare:
        _report(path, options.plot)


def _report(path: Path, plot: Path | None) -> None:
    records = latest(read_records(path))
    if not records:
        raise UserError(f"{path}: nothing measured yet")
    print(report.overview(records))
    write_atomic(path.with_suffix(".md"), report.document(records))
    for job in JOBS:
        if any(config.job == job for config in records):
            target = plot or path.with_suffix(".png")
            report.plot(records, job, target.with_stem(f"{target.stem}-{job}"))


def _provenance() -> dict[str, Any]:
    flags = host.cpu_flags()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", "-m", "benchmarks.peers", *sys.argv[1:]]),
        "deploy": deploy_digest(),
        "machine": {
            "cpu": host.cpu_model(),
            "architecture": host.architecture(),
            "features": [f for f, flag in host.X86_FEATURE_FLAGS.items() if flag in flags],
            "cores": len(os.sched_getaffinity(0)),
            "kernel": platform.release(),
            "python": platform.python_version(),
        },
    }


def _parser() -> argparse.ArgumentParser:
    defaults = Timing()
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers", description=__doc__.splitlines()[0]
    )
    add = parser.add_argument
    add("--models", nargs="+", default=MODELS)
    add("--resolutions", nargs="+", default=RESOLUTIONS, metavar="HxW")
    add("--threads", nargs="+", type=int, default=[1, 2])
    add("--jobs", nargs="+", choices=list(JOBS), default=list(JOBS))
    add("--peers", nargs="+", default=list(PEERS), metavar="NAME", help=", ".join(PEERS))
    add("--rounds", type=int, default=defaults.rounds, help="blocks of each side")
    add("--warmup", type=int, default=defaults.warmup, help="calls before a block, not counted")
    add("--block", type=float, default=defaults.block_s, metavar="S", help="length of a block")
    add("--pause", type=float, default=defaults.pause_s, metavar="S", help="before a block")
    add("--output", type=Path, help="results (default: benchmarks/results/peers-<cpu>.jsonl)")
    add("--plot", type=Path, help="PNG or SVG; default: beside the results")
    add("--cache", type=Path, default=_cache(), help="where converted networks are kept")
    add("--prepare", action="store_true", help="convert for every side, time nothing")
    add("--again", action="store_true", help="measure also what was measured already")
    add("--report", action="store_true", help="only print and plot what was measured")
    return parser


def _cache() -> Path:
    base = os.environ.get("HMSEG_HOME") or os.environ.get("XDG_CACHE_HOME")
    root = Path(base) if base else Path.home() / ".cache"
    return root / ("peers" if os.environ.get("HMSEG_HOME") else "hmseg/peers")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
