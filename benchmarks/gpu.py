"""Parity on the device, latency beside every peer that runs there, and each kernel's time.

    benchmarks/gpu.sh [--models tiny-mrms mrms tiny-hmseg] [--resolutions 256x512 ...] [--minutes 8]
        [--table-minutes 2.5] [--precision fp16] [--tune-seconds 10] [--jobs 1] [--again] [-o DIR]

For each network and size, those of the bars first (768x1536 and 1024x2048): schedules are tuned for
`--tune-seconds` (0: not), going on from the records of earlier runs in the user's folder; the
artifact is compiled with them for this machine's own GPU and gated on it (five images against
onnxruntime); frames from uint8 image to labels are timed in turn with torch eager, torch.compile,
onnxruntime's CUDA provider and TensorRT, as far as they are installed and give the same labels; the
GPU's own events split upload, compute and download; every kernel is timed alone. `memory_floor_ms`
is what the frame's kernels would take if each read and wrote its arguments once at the bandwidth
that a copy of 256 MB on this GPU reaches (read and written bytes counted). `--precision fp16` is of
our network alone; the others compute in fp32. `--table-minutes` (0: none) are for the GPU's latency
table (`benchmarks/gpu_table.py`): the last ones, or the first where there is one already, before
tuning changes the schedules that it is of; rows of its size wait while it is unfinished.

Results go to DIR/gpu-NAME.json (gpu-NAME-fp16.json) with what they were measured on, after every
row. A row that fails is named and the others go on; the exit code is then 1. With `--jobs` above 1,
which goes with `--tune-seconds 0`, so many rows are exported, compiled and gated at a time, each in
a process of its own. Their peers are started and they are measured one after the other, each when
no other uses the GPU; those that wait for that are asleep. What the minutes do
not suffice for is named as left out: the next start with the same GPU, software and options keeps
the rows there are and goes on with it (`--again`: measures all anew).
"""

import argparse
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing import connection
from pathlib import Path
from typing import Any

from benchmarks.gpu_report import (
    BAR_RESOLUTIONS,
    Results,
    Row,
    bar_line,
    bars,
    key_of,
    provenance,
    take_up,
)
from benchmarks.gpu_row import model_digest, try_row
from benchmarks.gpu_table import RESOLUTION, UP, measure_table, table_path
from deploy.precision import PRECISIONS
from lut.errors import HmsegError, UserError
from lut.files import check_writable

MODELS = ("tiny-mrms", "mrms", "tiny-hmseg")
RESOLUTIONS = ("256x512", "512x1024", *BAR_RESOLUTIONS)
CONTEXT: Any = multiprocessing.get_context("spawn")  # a fork has no CUDA


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def in_order(models: Iterable[str], resolutions: Iterable[str]) -> list[tuple[str, str]]:
    """Model and size of every row: the bars' sizes first, else as given."""
    pairs = [(model, size) for model in models for size in dict.fromkeys(resolutions)]
    return sorted(dict.fromkeys(pairs), key=lambda pair: pair[1] not in BAR_RESOLUTIONS)


def run(options: argparse.Namespace) -> Results:
    """Measure what is not measured yet, until the minutes are over."""
    from deploy.gpu.driver import Driver

    driver = Driver()
    if options.jobs > 1 and options.tune_seconds > 0:
        raise UserError("--jobs is for --tune-seconds 0: tuning has the GPU to itself")
    now = provenance(driver, options)
    name = "-".join(driver.name.lower().split()) + "-fp16" * (options.precision == "fp16")
    path, table_file = options.out / f"gpu-{name}.json", table_path(options.out, name)
    check_writable(path)
    rows, about = take_up(path, now, again=options.again)
    if about:
        say(about)
    begin = time.monotonic()
    end_of_rows = end = begin + 60 * options.minutes
    table_s = 60 * options.table_minutes
    results, kept = Results(path, now, rows), {key_of(row) for row in rows}
    left = results.left_out
    todo = [
        (model, size)
        for model, size in in_order(options.models, options.resolutions)
        if (model, model_digest(model), size) not in kept
    ]
    left |= {f"{model} {size}": "not begun" for model, size in todo}
    results.write()
    waiting = ""  # the size of a table that is not finished
    if table_s > 0 and table_file.exists():
        results.table = measure_table(options.precision, table_file, begin + table_s)
        waiting = RESOLUTION if results.table["left_out"] else ""
    elif table_s > 0:
        end_of_rows -= table_s
    for model, size in todo:
        if size == waiting:
            left[f"{model} {size}"] = "its tuning would change what the unfinished table is of"
    rows_now = [(model, size) for model, size in todo if size != waiting]
    make = made_together if options.jobs > 1 else made_in_turn
    for (model, size), found in make(rows_now, driver.capability, options, end_of_rows):
        record(results, f"{model} {size}", found)
    if table_s > 0:
        results.table = results.table or measure_table(options.precision, table_file, end)
        if results.table["left_out"]:
            left["the latency table"] = results.table["left_out"]
    results.write()
    return results


# Of model and size the row, or why there is none.
Made = Iterator[tuple[tuple[str, str], Row | str]]


def made_in_turn(
    todo: Sequence[tuple[str, str]], capability: int, options: argparse.Namespace, end: float
) -> Made:
    """The rows, as long as there is time for as long a one as any before."""
    longest = 0.0
    for model, size in todo:
        start = time.monotonic()
        if start + longest > end:
            yield (model, size), UP
            continue
        yield (model, size), try_row(model, size, capability, options, end)
        longest = max(longest, time.monotonic() - start)


def made_together(
    todo: Sequence[tuple[str, str]], capability: int, options: argparse.Namespace, end: float
) -> Made:
    """The rows in the order in which they are ready; those that are not when `end` is over are
    given up."""
    waiting, running = list(todo), {}
    with tempfile.NamedTemporaryFile(prefix="hmseg-turns-") as lock:
        try:
            while waiting or running:
                while waiting and len(running) < options.jobs and time.monotonic() < end:
                    row_of = waiting.pop(0)
                    result, sent = CONTEXT.Pipe(duplex=False)
                    arguments = (*row_of, capability, options, end, Path(lock.name))
                    process = CONTEXT.Process(target=_send_row, args=(sent, arguments))
                    process.start()
                    sent.close()
                    running[result] = row_of, process
                if not running:
                    break  # the time is over before a first row could be begun
                ready = connection.wait(list(running), max(0.0, end - time.monotonic()))
                if not ready:
                    break
                for result in ready:
                    row_of, process = running.pop(result)
                    try:
                        found = result.recv()
                    except (EOFError, OSError):  # it ended before, or while, it sent
                        process.join()
                        found = f"its process ended with {process.exitcode}"
                    process.join()
                    yield row_of, found
        finally:
            for _, process in running.values():
                process.terminate()
                process.join()
    for row_of in (*(row_of for row_of, _ in running.values()), *waiting):
        yield row_of, UP


def _send_row(sent: connection.Connection, arguments: Sequence[Any]) -> None:
    sent.send(try_row(*arguments))


def record(results: Results, what: str, found: Row | str) -> None:
    """Add a row to the results, or why there is none."""
    if found == UP:
        results.left_out[what] = UP
    elif isinstance(found, str):
        results.left_out[what] = f"failed: {found}"
        results.errors.append(f"{what}: {found}")
        say(f"{what} failed: {found}")
    else:
        results.rows.append(found)
        del results.left_out[what]
        for line in row_lines(found):
            say(line)
    results.write()


def row_lines(row: Row) -> list[str]:
    """A row in words."""
    what, ours = f"{row['model']} {row['resolution']}", row["latency"]["hmseg"]
    ratios = ", ".join(f"{n} {r['median']:.2f}x" for n, r in row["ratios"].items())
    lines = [
        f"{what}: {ours['median_ms']:.3f} ms ({ratios or 'no peer runs here'}), compute "
        f"{row['compute_over_floor']:.2f}x the memory floor"
    ]
    shares = ", ".join(f"{n} {share:.4%}" for n, share in row.get("differing_labels", {}).items())
    lines += [f"{what}: labels that differ from hmseg's: {shares}"] * bool(shares)
    return lines + [f"{what}: {name}: {note}" for name, note in row.get("notes", {}).items()]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--resolutions", nargs="+", default=RESOLUTIONS)
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--table-minutes", type=float, default=2.5)
    parser.add_argument("--tune-seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeat", type=int, default=50)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--again", action="store_true", help="keep no row of an earlier start")
    parser.add_argument("-o", "--out", type=Path, default=Path("benchmarks/results"))
    try:
        results = run(parser.parse_args(arguments))
    except HmsegError as error:
        say(f"error: {error}")
        return error.exit_code
    for what, why in results.left_out.items():
        say(f"left out: {what}, {why}")
    for bar in bars(results.rows):
        say(bar_line(bar))
    print(results.path)
    return 1 if results.errors else 0


if __name__ == "__main__":
    sys.exit(main())
