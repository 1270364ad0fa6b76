"""Our binary beside every runtime that a user would pick instead, on this CPU.

    python -m benchmarks.peers                      # the whole matrix; goes on where it was killed
    python -m benchmarks.peers --models tiny-mrms --resolutions 256x512 --threads 2
    python -m benchmarks.peers --prepare            # conversions only, nothing is timed
    python -m benchmarks.peers --jobs float-logits  # from the normalised tensor to the logits
    python -m benchmarks.peers --precision bf16 --peers onnxruntime openvino openvino-bf16
    python -m benchmarks.peers --report             # tables and plots of what was measured

Same folded graph, same threads, fp32 unless asked otherwise, the same image. Every side runs in a
process of its own and is stopped while another is timed; blocks of calls take turns
(deploy.measure.interleave), an FMA probe before each tells a slow phase of the machine. Times
include every copy from the numpy input to the numpy output. Each peer is checked against
onnxruntime first; one that cannot run is named with the reason. Needs the extra `peers`
(docs/guides/peers.md).
"""

import argparse
import sys
from itertools import product
from pathlib import Path

from benchmarks.peers_lib import command, report
from benchmarks.peers_lib.adapters import PEERS
from benchmarks.peers_lib.job import JOBS, Config
from benchmarks.peers_lib.results import default_path, latest, read_records
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
    configs = [
        Config(model, size, threads, job, precision=options.precision)
        for model, size, threads, job in product(
            options.models, options.resolutions, options.threads, options.jobs
        )
    ]
    for record in command.measure("benchmarks.peers", configs, options, path):
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers", description=__doc__.splitlines()[0]
    )
    add = parser.add_argument
    add("--models", nargs="+", default=MODELS)
    add("--resolutions", nargs="+", default=RESOLUTIONS, metavar="HxW")
    add("--threads", nargs="+", type=int, default=[1, 2])
    add("--jobs", nargs="+", choices=list(JOBS), default=list(JOBS))
    command.add_arguments(parser, list(PEERS))
    add("--output", type=Path, help="results (default: benchmarks/results/peers-<cpu>.jsonl)")
    add("--plot", type=Path, help="PNG or SVG; default: beside the results")
    add("--report", action="store_true", help="only print and plot what was measured")
    return parser


if __name__ == "__main__":
    sys.exit(main())
