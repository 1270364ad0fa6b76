"""What the compiler makes of files that people bring: every peer network, both of torch's
exporters, several opsets.

    python -m benchmarks.own_files --folder out/own-files
    python -m benchmarks.own_files --folder out/own-files --networks unet icnet --opsets 17 --again

Each network of `hmseg.families`, with random weights and calibrated batch norm, is exported to
FOLDER/NETWORK-EXPORTER-OPSET-SIZE.onnx, run in onnxruntime against torch on a made-up image, and
compiled for this CPU with the parity gate. The exports of a network are one process, each
compilation is one, all with a time limit; what they came to is a line in FOLDER/rows.jsonl. A line
that is there is not made again, unless `--again`. Exits with 1 where a file that onnxruntime runs
was not compiled.

The exporter by `torch.export` ("dynamo") writes opset 18 and has it converted where it is asked
for less; where that fails, as it does for Resize, the file stays at 18: `opset` is what it came to
be, and a file that is the same as another is compiled once. The tracing one ("legacy") knows no
adaptive pool whose bins do not divide the map: there such a pool is written as the two products
with constant matrices that it is; nor unpooling, which becomes ONNX's own. `MB` is the largest
resident size of the process. `error` is the difference over the largest score that 99% of the
scores keep below: rounding alone moves some that are unpooled (SegNet, ENet) to a neighbour.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from lut.errors import HmsegError, UserError
from lut.jsonl import append_record, read_records

EXPORTERS = ("dynamo", "legacy")
OPSETS = (11, 17, 20)

Row = dict[str, Any]


def compile_file(path: Path, threads: int) -> Row:
    """What `hmseg-deploy compile` does with the file: its gate's verdict, or why there is none."""
    from deploy.build import build_source
    from deploy.graph.source import open_source
    from deploy.object_cache import ObjectCache
    from deploy.targets import resolve_target

    start = time.perf_counter()
    source = open_source(str(path))
    read = time.perf_counter() - start
    _, comparisons = build_source(
        source, resolve_target("cpu"), threads=threads,
        cache=ObjectCache(path.parent / "objects"),
    )  # fmt: skip
    share = max(comparison.share_of_tolerance for comparison in comparisons)
    return {"share_of_tolerance": share, "read_s": round(read, 1)}


def one_line(error: BaseException) -> str:
    """An error as a cell of the table."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def child(task: Row, answer: Path) -> None:
    """One step, in a process of its own: a list of rows."""
    try:
        if task["step"] == "export":
            from benchmarks.own_files_exports import export_all

            rows = export_all(task)
        else:
            rows = [compile_file(Path(task["path"]), task["threads"])]
    except UserError as error:
        rows = [{"failed": "refused", "why": one_line(error)}]
    except HmsegError as error:
        rows = [{"failed": "gate", "why": one_line(error)}]
    except Exception as error:  # a fault of ours: the table names it
        traceback.print_exc()
        rows = [{"failed": "traceback", "why": one_line(error)}]
    answer.write_text(json.dumps(rows))


def in_process(task: Row, limit_s: float) -> list[Row]:
    """Run a step; its rows, or one that says how it ended, with memory, seconds and a log."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        command = [sys.executable, "-m", "benchmarks.own_files", "--child", json.dumps(task)]
        with (Path(folder) / "log").open("w+") as log:
            start = time.perf_counter()
            process = subprocess.Popen([*command, str(answer)], stdout=log, stderr=log)
            kib = wait(process, start + limit_s)
            seconds = time.perf_counter() - start
            log.seek(0)
            said = log.read()[-2000:]
        if answer.is_file():
            rows: list[Row] = json.loads(answer.read_text())
        else:
            rows = [{"failed": "time limit" if seconds >= limit_s else "killed"}]
    for row in rows:
        row |= {"MB": kib // 1024, "step": task["step"]}
        row.setdefault("seconds", round(seconds, 1))
        if row.get("failed") in ("traceback", "killed"):
            row["log"] = said
    return rows


def wait(process: "subprocess.Popen[bytes]", deadline: float) -> int:
    """Until the process ends, or is killed at the deadline; the KiB it had at most."""
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return usage.ru_maxrss
        if time.perf_counter() > deadline:
            process.kill()
        time.sleep(0.1)


def line(exported: Row, compiled: Row | None) -> str:
    """One row of the table."""
    cells = f"{exported['network']:<24}{exported['exporter']:<8}{exported['asked']:>3}"
    cells += f"{exported.get('opset', ''):>4}{exported.get('nodes', ''):>6}"
    if not exported.get("runs"):
        return f"{cells}  {exported.get('failed', 'onnxruntime')}: {exported.get('why', '')[:110]}"
    cells += f"{exported['error']:>9.0e}"
    if compiled is None:
        return cells
    cells += f"{compiled['seconds']:>7.1f} s{compiled['MB']:>6} MB  "
    if "failed" in compiled:
        return f"{cells}{compiled['failed']}: {compiled.get('why', '')[:160]}"
    return f"{cells}compiled, {compiled['share_of_tolerance']:.1%} of the tolerance"


class Rows:
    """The rows that are there, and how the others are made."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.file: Path = options.folder / "rows.jsonl"
        records = read_records(self.file)
        self.exported = {row["path"]: row for row in records if row["step"] == "export"}
        self.compiled = {row["sha256"]: row for row in records if row["step"] == "compile"}
        if options.again:
            self.compiled = {}

    def export(self, network: str) -> list[Row]:
        """A row for each file of the network."""
        height, width = self.options.size
        files = []
        for exporter in self.options.exporters:
            for asked in self.options.opsets:
                path = self.options.folder / f"{network}-{exporter}-{asked}-{height}x{width}.onnx"
                file = {"network": network, "exporter": exporter, "asked": asked}
                files.append(file | {"path": str(path)})
        if missing := [file for file in files if file["path"] not in self.exported]:
            task = {"step": "export", "network": network, "height": height, "width": width}
            made = in_process(task | {"files": missing}, self.options.limit)
            if len(made) != len(missing):  # it did not come to an end
                made = [file | made[0] for file in missing]
            for row in made:
                append_record(self.file, row)
                self.exported[row["path"]] = row
        return [self.exported[file["path"]] for file in files]

    def compile(self, exported: Row) -> Row | None:
        """The row of a file, or of one that is the same; none where it cannot be run."""
        if self.options.export_only or not exported.get("runs"):
            return None
        if (key := exported["sha256"]) not in self.compiled:
            task = {"step": "compile", "path": exported["path"], "threads": self.options.threads}
            row = task | {"sha256": key} | in_process(task, self.options.limit)[0]
            append_record(self.file, row)
            self.compiled[key] = row
        return self.compiled[key]


def main() -> int:
    """Make the rows that are missing, print the table."""
    from hmseg.families import list_networks

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="files and rows.jsonl")
    parser.add_argument("--networks", nargs="*", default=None)
    parser.add_argument("--exporters", nargs="*", default=EXPORTERS, choices=EXPORTERS)
    parser.add_argument("--opsets", nargs="*", default=OPSETS, type=int)
    parser.add_argument("--size", nargs=2, default=(256, 512), type=int, metavar=("H", "W"))
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--limit", type=float, default=900, help="seconds for one process")
    parser.add_argument("--again", action="store_true", help="compile again what has a line")
    parser.add_argument("--export-only", action="store_true")
    rows = Rows(options := parser.parse_args())
    wrong = 0
    for network in options.networks or list_networks():
        for exported in rows.export(network):
            compiled = rows.compile(exported)
            wrong += compiled is not None and "failed" in compiled
            print(line(exported, compiled), flush=True)
    print(f"{wrong} files that onnxruntime runs were not compiled")
    return 1 if wrong else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(json.loads(sys.argv[2]), Path(sys.argv[3]))
    else:
        sys.exit(main())
