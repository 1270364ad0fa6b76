"""Damaged files of every kind, each in a bounded process, and what escaped.

    python -m tests.fuzz --files 5000
    python -m tests.fuzz --files 300 --kinds onnx image --first 5000
    python -m tests.fuzz --files 5000 --result benchmarks/results/fuzz.jsonl
    python -m tests.fuzz --kinds onnx --write 17 --to damaged.onnx

Each file is read, as far as a program goes with it before it computes, with at most 1 GB of memory.
A file that ends its process, takes longer than 20 s of CPU time, or waits for ever, counts as one
that escaped: what it takes that a reader puts such a process around the library that fails (ONNX's,
onnxruntime's) is not part of this. With --result a line of JSON for each kind goes to a file, which
is written at the end. Exits with 1 where any escaped.
"""

import argparse
import json
import selectors
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lut.files import write_atomic
from tests.fuzz.kinds import KINDS

_WORKER = (sys.executable, "-m", "tests.fuzz.worker")
_SECONDS = 20.0  # of CPU time
_SILENT_S = 300.0  # what waits, for a lock or a pipe, takes no CPU time


@dataclass(frozen=True)
class Outcome:
    """Of one file: what escaped, if anything, and the most memory its process has had so far."""

    kind: str
    number: int
    escaped: str | None
    bytes: int


def fuzz(kind: str, numbers: range) -> Iterator[Outcome]:
    """Read the damaged files of these numbers. One that ends its process is left behind. Raises
    RuntimeError where a process ends before its first file."""
    while numbers:
        done = 0
        for outcome in _until_it_ends(kind, numbers):
            done += 1
            yield outcome
        numbers = numbers[done:]


def _until_it_ends(kind: str, numbers: range) -> Iterator[Outcome]:
    command = [*_WORKER, kind, *map(str, (numbers.start, numbers.step, numbers.stop))]
    # To a file: a pipe that is full would stop the process, which then looks as if it hung.
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors) as process,
    ):
        at: int | None = None
        first = True
        how = ""
        try:
            for line in _lines(process):
                said = json.loads(line)
                at = said.get("begun")
                if "read" in said:
                    first = False
                    yield Outcome(kind, said["read"], said["escaped"], said["bytes"])
            process.wait(_SECONDS)
        except TimeoutError as error:
            how = str(error)
        finally:
            process.kill()
        process.wait()
        errors.seek(0)
        how = how or errors.read()[-2000:].decode(errors="replace")
    if at is not None:
        yield Outcome(kind, at, f"the process ended ({process.returncode}): {how}", 0)
    elif first or process.returncode:
        raise RuntimeError(f"the worker for {kind} ended ({process.returncode}): {how}")


def _lines(process: "subprocess.Popen[bytes]") -> Iterator[bytes]:
    """Until the process ends. Raises TimeoutError where it is silent for too long, by its own clock
    of CPU time or by seconds in which this process waited: both stand still while a machine
    sleeps."""
    assert process.stdout
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        spent, waited, rest = _cpu_s(process.pid), 0, b""
        while True:
            if selector.select(timeout=1.0):
                data = process.stdout.read1()
                if not data:
                    return
                *lines, rest = (rest + data).split(b"\n")
                yield from lines
                spent, waited = _cpu_s(process.pid), 0
                continue
            waited += 1
            if _cpu_s(process.pid) - spent > _SECONDS:
                raise TimeoutError(f"it takes longer than {_SECONDS:g} s")
            if waited > _SILENT_S:
                raise TimeoutError(f"it says nothing for {_SILENT_S:g} s")


def _cpu_s(pid: int) -> float:
    """Seconds of CPU time: the clock says nothing of a process that others keep waiting."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def main() -> int:
    """See above."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", type=int, default=5000, help="of all kinds together")
    parser.add_argument("--first", type=int, default=0, help="number of each kind's first file")
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--result", type=Path, help="file to write what was found to")
    parser.add_argument("--write", type=int, help="write the file of this number instead")
    parser.add_argument("--to", type=Path, default=Path("damaged"))
    options = parser.parse_args()
    if options.write is not None:
        options.to.write_bytes(KINDS[options.kinds[0]].file(options.write))
        return 0
    each = -(-options.files // len(options.kinds))
    numbers = range(options.first, options.first + each)
    rows = [_row(kind, numbers) for kind in options.kinds]
    escaped = sum(len(row["escaped"]) for row in rows)
    most = max(row["MiB"] for row in rows)
    print(f"{sum(row['files'] for row in rows)} files, {escaped} escaped, peak {most} MiB")
    if options.result:
        write_atomic(options.result, "".join(json.dumps(row) + "\n" for row in rows))
    return 1 if escaped else 0


def _row(kind: str, numbers: range) -> dict[str, Any]:
    """Of a kind: how many files, the most memory, and by number what escaped."""
    outcomes = []
    for outcome in fuzz(kind, numbers):
        outcomes.append(outcome)
        if outcome.escaped:
            print(f"{kind} {outcome.number}: {outcome.escaped}", flush=True)
    escaped = {outcome.number: outcome.escaped for outcome in outcomes if outcome.escaped}
    most = max(outcome.bytes for outcome in outcomes) >> 20
    print(f"{kind:<12}{len(outcomes):>6} files{most:>6} MiB", flush=True)
    return {
        "kind": kind, "first": numbers.start, "files": len(outcomes), "MiB": most,
        "escaped": escaped,
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
