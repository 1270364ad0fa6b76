"""Our own precisions beside each other and beside the peers' best of any precision, in one run.

    python -m benchmarks.fit --data CAMVID          # once: classifiers whose labels mean something
    python -m benchmarks.precision                  # everything; goes on where it was killed
    python -m benchmarks.precision --models tiny-hmseg-camvid --resolutions 256x512 --rounds 1
    python -m benchmarks.precision --prepare        # conversions only, nothing is timed
    python -m benchmarks.precision --report         # docs/results.md

The sides are ours in float32, bfloat16 and int8, and the peers in all that they have; the job is
labels, the protocol that of `benchmarks.peers` (docs/guides/peers.md): a process each, in turn. The
bars are in `benchmarks.results_lib.precision`.
"""

import argparse
import sys
from itertools import product
from pathlib import Path

from benchmarks.peers_lib import command, report
from benchmarks.peers_lib.adapters import BF16, INT8, LOW_PRECISION
from benchmarks.peers_lib.job import Config
from benchmarks.peers_lib.results import latest, read_records
from benchmarks.results_lib import precision
from benchmarks.results_lib.store import FOLDER
from lut.errors import HmsegError, UserError

MODULE = "benchmarks.precision"
OURS = ("tiny-hmseg-camvid", "tiny-mrms-camvid", "mrms-fitted")
DENSE = ("bisenetv1-r18-fitted", "ddrnet-23-slim-fitted", "stdc1-seg-fitted")
FITTED = (OURS[2], *DENSE)  # `python -m benchmarks.fit` comes first
RESOLUTIONS = ("256x512", "768x1536")  # dense networks: the first alone
SIDES = (BF16, INT8, "onnxruntime", "openvino", *LOW_PRECISION)


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 0 done, 1 the work failed, 2 the user's mistake."""
    options = _parser().parse_args(arguments)
    try:
        _run(options)
    except HmsegError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def list_configs(models: list[str], resolutions: list[str], threads: list[int]) -> list[Config]:
    """Networks of the zoo at every size, dense ones as their users export them at the first."""
    if unknown := set(models) - {*OURS, *DENSE}:
        raise UserError(f"unknown network {min(unknown)!r}: there are {', '.join((*OURS, *DENSE))}")
    return [
        Config(name, size, count, "labels", "dynamo" if name in DENSE else "")
        for name, size, count in product(models, resolutions, threads)
        if name in OURS or size == RESOLUTIONS[0]
    ]


def _run(options: argparse.Namespace) -> None:
    path = options.output or FOLDER / precision.file_name(command.cpu_slug())
    if not options.report:
        configs = list_configs(options.models, options.resolutions, options.threads)
        for record in command.measure(MODULE, configs, options, path, go_on=True):
            if "failed" in record:
                print(f"{Config(**record['config'])}: {record['failed']}", flush=True)
            else:
                print(report.detail(record, read_records(path)), end="\n\n", flush=True)
    if options.prepare:
        return
    records = latest(read_records(path))
    if not records:
        raise UserError(f"{path}: nothing measured yet")
    for row in precision.rows_of(records):
        print(" | ".join(map(str, row)))
    if options.report and not options.output:
        from benchmarks import results_page

        if code := results_page.main([]):
            raise UserError(f"{results_page.COMMAND} ended with {code}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m {MODULE}", description=__doc__.splitlines()[0]
    )
    add = parser.add_argument
    add("--models", nargs="+", default=[*OURS, *DENSE], metavar="NAME")
    add("--resolutions", nargs="+", default=list(RESOLUTIONS), metavar="HxW")
    add("--threads", nargs="+", type=int, default=[2])
    command.add_arguments(parser, SIDES)
    add("--output", type=Path, help="results (default: benchmarks/results/precision-<cpu>.jsonl)")
    add("--report", action="store_true", help="only write the table of what was measured")
    return parser


if __name__ == "__main__":
    sys.exit(main())
