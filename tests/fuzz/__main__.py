"""Damaged files of every kind, each in a bounded process, and what escaped.

    python -m tests.fuzz --files 5000
    python -m tests.fuzz --files 300 --kinds onnx image --first 5000
    python -m tests.fuzz --kinds onnx --write 17 --to damaged.onnx

Each file is read, as far as a program goes with it before it computes, with at most 1 GB of memory.
A file that ends its process, or takes longer than 20 s, counts as one that escaped: what it takes
that a reader puts such a process around the library that fails (ONNX's, onnxruntime's) is not part
of this. Exits with 1 where any did.
"""

import argparse
import json
import selectors
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.kinds import KINDS

_SECONDS = 20.0


@dataclass(frozen=True)
class Outcome:
    """Of one file: what escaped, if anything, and the most memory its process has had so far."""

    kind: str
    number: int
    escaped: str | None
    bytes: int


def fuzz(kind: str, numbers: range) -> Iterator[Outcome]:
    """Read the damaged files of these numbers. One that ends its process is left behind."""
    while numbers:
        done = 0
        for outcome in _until_it_ends(kind, numbers):
            done += 1
            yield outcome
        numbers = numbers[done:]


def _until_it_ends(kind: str, numbers: range) -> Iterator[Outcome]:
    command = [sys.executable, "-m", "tests.fuzz.worker", kind]
    command += [str(part) for part in (numbers.start, numbers.step, numbers.stop)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        at: int | None = None
        for line in _lines(process):
            said = json.loads(line)
            at = said.get("begun")
            if "read" in said:
                yield Outcome(kind, said["read"], said["escaped"], said["bytes"])
        process.kill()
        errors = process.stderr.read().decode(errors="replace") if process.stderr else ""
    if at is not None:
        how = f"it takes longer than {_SECONDS:g} s" if process.returncode == -9 else errors[-2000:]
        yield Outcome(kind, at, f"the process ended ({process.returncode}): {how}", 0)
    elif process.returncode not in (0, -9):
        raise RuntimeError(f"the worker for {kind} fails: {errors}")


def _lines(process: "subprocess.Popen[bytes]") -> Iterator[bytes]:
    """Until the process ends, or is silent for too long by its own clock of CPU time."""
    assert process.stdout
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        spent, rest = _cpu_s(process.pid), b""
        while True:
            if selector.select(timeout=1.0):
                data = process.stdout.read1()
                if not data:
                    return
                *lines, rest = (rest + data).split(b"\n")
                yield from lines
                spent = _cpu_s(process.pid)
            elif _cpu_s(process.pid) - spent > _SECONDS:
                return


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
    parser.add_argument("--write", type=int, help="write the file of this number instead")
    parser.add_argument("--to", type=Path, default=Path("damaged"))
    options = parser.parse_args()
    if options.write is not None:
        options.to.write_bytes(KINDS[options.kinds[0]].file(options.write))
        return 0
    each = -(-options.files // len(options.kinds))
    escaped, read, most = 0, 0, 0
    for kind in options.kinds:
        start, peak = time.monotonic(), 0
        for outcome in fuzz(kind, range(options.first, options.first + each)):
            read, peak = read + 1, max(peak, outcome.bytes)
            if outcome.escaped:
                escaped += 1
                print(f"{kind} {outcome.number}: {outcome.escaped}", flush=True)
        most = max(most, peak)
        seconds = time.monotonic() - start
        print(f"{kind:<12}{each:>6} files{seconds:>7.0f} s{peak >> 20:>6} MiB", flush=True)
    print(f"{read} files, {escaped} escaped, peak {most >> 20} MiB")
    return 1 if escaped else 0


if __name__ == "__main__":
    sys.exit(main())
