"""What commands that time configurations have in common: options, provenance, going on."""

import argparse
import os
import platform
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.peers_lib.adapters import BF16, INT8, LOW_PRECISION, PEERS, deploy_digest
from benchmarks.peers_lib.cache import cache_root
from benchmarks.peers_lib.job import Config, without_folders
from benchmarks.peers_lib.results import Record, append_record, is_done, latest, read_records
from benchmarks.peers_lib.run import Runner, Timing
from deploy import host
from deploy.precision import FP32, PRECISIONS
from lut.errors import HmsegError, UserError

_PRECISIONS = [
    name for name, found in PRECISIONS.items() if found is FP32 or found.maps != FP32.maps
]


def add_arguments(parser: argparse.ArgumentParser, peers: Sequence[str]) -> None:
    """The peers, the protocol, and what is done again; `peers` are those without an option."""
    defaults, add = Timing(), parser.add_argument
    add(
        "--peers",
        nargs="+",
        default=list(peers),
        metavar="NAME",
        help=", ".join((*PEERS, *LOW_PRECISION)),
    )
    add("--rounds", type=int, default=defaults.rounds, help="blocks of each side")
    add("--warmup", type=int, default=defaults.warmup, help="calls before a block, not counted")
    add("--block", type=float, default=defaults.block_s, metavar="S", help="length of a block")
    add("--pause", type=float, default=defaults.pause_s, metavar="S", help="before a block")
    add("--cache", type=Path, default=cache_root(), help="where converted networks are kept")
    add("--precision", default=FP32.name, choices=_PRECISIONS, help="of our own side")
    add("--prepare", action="store_true", help="convert for every side, time nothing")
    add("--again", action="store_true", help="measure also what was measured already")


def measure(
    module: str, configs: Sequence[Config], options: argparse.Namespace, path: Path, *,
    go_on: bool = False,
) -> Iterator[Record]:  # fmt: skip
    """Time what the file does not have yet; each record is in the file when it comes. With
    --prepare everything is only converted.

    Where a network is not exported or our own side fails the error is raised, or, with `go_on`, is
    the record's `failed`. Raises UserError for an unknown peer or a malformed size before long
    work.
    """
    runner = open_runner(options)
    for config in configs:
        assert config.size  # raises UserError
    for config in configs:
        if options.prepare:
            try:
                for name, reason in runner.prepare_all(config, options.peers).items():
                    print(f"{config}: {name} cannot run: {reason}", flush=True)
            except HmsegError as error:
                if not go_on:
                    raise
                print(f"{config}: {error}", flush=True)
            continue
        known = provenance(module)
        wanted = known | {"requested": sorted(options.peers), "protocol": vars(runner.timing)}
        if not options.again and is_done(latest(read_records(path)).get(config), wanted):
            say(f"{config}: measured already")
            continue
        try:
            record = runner.run(config, options.peers) | known
        except HmsegError as error:
            if not go_on:
                raise
            record = wanted | {"config": config.to_json(), "failed": without_folders(str(error))}
        append_record(path, record)
        yield record


def open_runner(options: argparse.Namespace) -> Runner:
    """By the options of `add_arguments`; raises UserError for an unknown peer."""
    known = (*PEERS, *LOW_PRECISION, BF16, INT8)
    if unknown := set(options.peers) - set(known):
        raise UserError(f"unknown peers {sorted(unknown)}; there are {', '.join(known)}")
    timing = Timing(
        rounds=options.rounds, warmup=options.warmup, block_s=options.block, pause_s=options.pause
    )
    return Runner(options.cache, timing, say)


def provenance(module: str) -> dict[str, Any]:
    """When, by which command of `python -m module`, of which sources, and where."""
    flags = host.cpu_flags()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": without_folders(shlex.join(["python", "-m", module, *sys.argv[1:]])),
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


def cpu_slug() -> str:
    """This CPU in a file's name: with family and model, as some call all of theirs the same."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    known = {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
    words = [host.cpu_model(), known.get("cpu family", ""), known.get("model", "")]
    return re.sub(r"[^a-z0-9]+", "-", " ".join(words).lower()).strip("-")


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
