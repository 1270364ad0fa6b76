"""Our binary beside the runtimes that people would use, on the networks that they bring.

    python -m benchmarks.any_network                  # everything; goes on where it was killed
    python -m benchmarks.any_network --exporters legacy
    python -m benchmarks.any_network --accuracy       # errors against double, also of --exact
    python -m benchmarks.any_network --prepare        # conversions only, nothing is timed
    python -m benchmarks.any_network --report         # docs/results.md and docs/any-network.png
    python -m benchmarks.any_network --networks ddrnet-23-slim --resolutions 256x512 --threads 1 \\
        --rounds 2 --peers onnxruntime --output quick.jsonl

Networks of `hmseg.families` with random weights and calibrated batch norm, exported as users do;
the networks, and the bars that each should reach, are in `benchmarks.peers_lib.bars`. The job is
labels, from the uint8 image; the protocol that of `benchmarks.peers` (docs/guides/peers.md), whose
environment it needs. Ours is compiled with a cold cache, by the shipped tuning records, and what
that took is a column; of networks that do not compile there is a line too, which says why. With
--output the report goes beside that file, and docs/ stays as it is.
"""

import argparse
import sys
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.peers_lib import command
from benchmarks.peers_lib.adapters import EXACT, OURS
from benchmarks.peers_lib.bars import (
    BARS,
    OF_THE_ZOO,
    PEERS,
    RESOLUTIONS,
    THREADS,
    rows_of,
    speed_verdict,
)
from benchmarks.peers_lib.bars_plot import draw_bars
from benchmarks.peers_lib.job import Config, Exporter, without_folders
from benchmarks.peers_lib.results import read_records
from benchmarks.results_lib import any_network
from benchmarks.results_lib.store import FOLDER, ROOT
from deploy.precision import FP32
from lut import jsonl
from lut.errors import HmsegError, UserError

MODULE = "benchmarks.any_network"
PLOT = ROOT / "docs" / "any-network.png"


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
    path = options.output or FOLDER / any_network.file_name(command.cpu_slug())
    if not options.report:
        configs = list_configs(
            options.networks, options.resolutions, options.threads, options.exporters,
            options.precision,
        )  # fmt: skip
        if options.accuracy:
            _measure_errors(configs, options, errors_path(path))
        else:
            for record in command.measure(MODULE, configs, options, path, go_on=True):
                row = rows_of([*read_records(path), record])
                config = Config(**record["config"])
                print(any_network.line(next(r for r in row if r.config == config)), flush=True)
    if not options.prepare:
        beside = path.with_suffix(".png") if options.output else None
        _report(path, PLOT if options.report and not options.output else beside)


def list_configs(
    networks: list[str], resolutions: list[str], threads: list[int], exporters: list[Exporter],
    precision: str = FP32.name,
) -> list[Config]:  # fmt: skip
    """In the order of the bars; a network of the zoo has no exporter. Raises UserError for an
    unknown network."""
    from hmseg.families import list_networks

    known = {*list_networks(), *OF_THE_ZOO}
    if unknown := [name for name in networks if name not in known]:
        raise UserError(f"unknown network {unknown[0]!r}: there are {', '.join(sorted(known))}")
    return list(
        dict.fromkeys(
            Config(name, size, count, "labels", "" if name in OF_THE_ZOO else exporter, precision)
            for exporter, name, size, count in product(exporters, networks, resolutions, threads)
        )
    )


def errors_path(path: Path) -> Path:
    """Where the errors against double precision are, beside the times."""
    return path.with_stem(f"{path.stem}{any_network.ERRORS}")


def _measure_errors(configs: list[Config], options: argparse.Namespace, path: Path) -> None:
    """With the most threads that are asked for: a network's error hardly depends on them."""
    from benchmarks.peers_lib.accuracy import measure_errors

    runner, most = command.open_runner(options), max(options.threads)
    for config in configs:
        if config.threads != most:
            continue
        truths: dict[str, Any] = {}
        for side in (OURS, EXACT):
            known = command.provenance(MODULE)
            what = {name: getattr(config, name) for name in ("model", "resolution", "exporter")}
            what |= {"side": side, "deploy": known["deploy"]}
            done = [r for r in jsonl.read_records(path) if all(r.get(k) == what[k] for k in what)]
            if done and not options.again:
                command.say(f"{config}: {side} compared already")
                continue
            record: dict[str, Any] = {}
            try:
                record["images"] = measure_errors(runner, config, side, truths)
            except HmsegError as error:
                record["failed"] = without_folders(str(error))
            jsonl.append_record(path, what | record | known | {"threads": config.threads})
            print(f"{config}: {any_network.error_line(what | record)}", flush=True)


def _report(path: Path, plot: Path | None) -> None:
    records, errors = read_records(path), jsonl.read_records(errors_path(path))
    if not records and not errors:
        raise UserError(f"{path}: nothing measured yet")
    rows = rows_of(records)
    for row in rows:
        print(any_network.line(row))
    verdicts = [speed_verdict(row) for row in rows]
    judged = [verdict.met for verdict in verdicts if verdict.met is not None]
    lost = sum(row.loses for row in rows)
    print(f"{sum(judged)} of {len(judged)} bars met, {lost} rows in which a peer wins")
    if rows and plot is not None:
        machine = records[-1]["machine"]
        title = f"Other runtimes' time over ours, fp32, labels, {machine['cpu']}"
        draw_bars(rows, title, plot)
    if plot == PLOT:
        from benchmarks import results_page

        if code := results_page.main([]):
            raise UserError(f"{results_page.COMMAND} ended with {code}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {MODULE}", description=__doc__.splitlines()[0]
    )
    add = parser.add_argument
    add("--networks", nargs="+", default=list(BARS), metavar="NAME")
    add("--resolutions", nargs="+", default=list(RESOLUTIONS), metavar="HxW")
    add("--threads", nargs="+", type=int, default=list(THREADS))
    add("--exporters", nargs="+", choices=["dynamo", "legacy"], default=["dynamo"])
    command.add_arguments(parser, PEERS)
    add("--accuracy", action="store_true", help="errors against double precision, no times")
    add("--output", type=Path, help="results (default: benchmarks/results/any-network-<cpu>.jsonl)")
    add("--report", action="store_true", help="only write table and plot of what was measured")
    return parser


if __name__ == "__main__":
    sys.exit(main())
