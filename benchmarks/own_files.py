"""What the compiler makes of files that people bring: every peer network, both of torch's
exporters, several opsets.

    python -m benchmarks.own_files --folder out/own-files
    python -m benchmarks.own_files --folder out/own-files --networks unet icnet --opsets 17 --again

Each network of `hmseg.families`, with random weights and calibrated batch norm, is exported to
FOLDER/NETWORK-EXPORTER-OPSET.onnx, run in onnxruntime against torch, and compiled for this CPU with
the parity gate. Each step is a process of its own with a time limit, and leaves one line in
FOLDER/rows.jsonl; a line that is there is not made again, unless `--again`. Exits with 1 where a
file that was exported, and that onnxruntime runs, was not compiled.

The exporter by `torch.export` ("dynamo") writes opset 18 at least and converts down; `opset` is
what the file came to have. The tracing one ("legacy") knows no adaptive pool whose bins do not
divide the map: there such a pool is written as the two products with constant matrices that it is.
`MB` is the largest resident size of the process, `error` the largest difference of a score over
the largest score.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lut.errors import HmsegError, UserError
from lut.jsonl import append_record, read_records

EXPORTERS = ("dynamo", "legacy")
OPSETS = (11, 17, 20)
SEED = 0

Row = dict[str, Any]


def export(network: str, exporter: str, opset: int, size: tuple[int, int], path: Path) -> Row:
    """Write the file and run it in onnxruntime on noise, against torch."""
    import numpy as np
    import onnx
    import onnxruntime
    import torch

    from hmseg.families import create_network
    from hmseg.families.calibrate import calibrate_batch_norm

    model = create_network(network)
    calibrate_batch_norm(model, SEED)
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(SEED + 1))
    with torch.no_grad():
        expected = model(image).numpy()
    named = {"input_names": ["image"], "output_names": ["scores"], "opset_version": opset}
    path.parent.mkdir(parents=True, exist_ok=True)
    if exporter == "dynamo":
        program = torch.onnx.export(model, (image,), dynamo=True, verbose=False, **named)
        assert program is not None
        program.save(path)
    else:
        with divided_pools():
            torch.onnx.export(model, (image,), path, dynamo=False, **named)
    graph = onnx.load(path, load_external_data=False)
    row = {
        "exported": True,
        "opset": next(entry.version for entry in graph.opset_import if not entry.domain),
        "nodes": len(graph.graph.node),
    }
    try:
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        (scores,) = session.run(None, {"image": image.numpy()})
    except Exception as error:  # onnxruntime's own classes, one for each status
        return row | {"runs": False, "why": one_line(error)}
    difference = float(np.abs(scores - expected).max() / np.abs(expected).max())
    return row | {"runs": bool(difference < 1e-3), "error": difference}


@contextmanager
def divided_pools() -> Iterator[None]:
    """Adaptive average pools that do not divide, as two products with constant matrices."""
    import torch
    import torch.nn.functional as F

    stock = F.adaptive_avg_pool2d

    def bins(size: int, count: int) -> torch.Tensor:
        matrix = torch.zeros(count, size)
        for i in range(count):
            start, stop = i * size // count, -(-(i + 1) * size // count)
            matrix[i, start:stop] = 1 / (stop - start)
        return matrix

    def pool(x: torch.Tensor, output_size: Any) -> torch.Tensor:
        rows, columns = (output_size,) * 2 if isinstance(output_size, int) else output_size
        height, width = int(x.shape[-2]), int(x.shape[-1])
        if height % rows == 0 and width % columns == 0:
            return stock(x, (rows, columns))
        return bins(height, rows) @ x @ bins(width, columns).T

    F.adaptive_avg_pool2d = pool
    try:
        yield
    finally:
        F.adaptive_avg_pool2d = stock


def compile_file(path: Path, threads: int) -> Row:
    """What `hmseg-deploy compile` does with the file: its gate's verdict, or why there is none."""
    from deploy.build import build_artifact
    from deploy.graph.source import open_source
    from deploy.object_cache import ObjectCache
    from deploy.targets import resolve_target

    start = time.perf_counter()
    graph = open_source(str(path)).graph
    read = time.perf_counter() - start
    cache = ObjectCache(path.parent / "objects")
    _, comparisons = build_artifact(graph, resolve_target("cpu"), threads=threads, cache=cache)
    share = max(c.max_logit_error / c.tolerance for c in comparisons)
    return {"compiled": True, "share_of_tolerance": share, "read_s": round(read, 1)}


def one_line(error: BaseException) -> str:
    """An error as a cell of the table."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def child(task: Row, answer: Path) -> None:
    """One step, in a process of its own."""
    path = Path(task["path"])
    try:
        if task["step"] == "export":
            size = (task["height"], task["width"])
            row = export(task["network"], task["exporter"], task["asked"], size, path)
        else:
            row = compile_file(path, task["threads"])
    except UserError as error:
        row = {"failed": "refused", "why": one_line(error)}
    except HmsegError as error:
        row = {"failed": "gate", "why": one_line(error)}
    except Exception as error:  # a fault of ours or of an exporter: the table names it
        traceback.print_exc()
        row = {"failed": "traceback", "why": one_line(error)}
    answer.write_text(json.dumps(row))


def in_process(task: Row, limit_s: float) -> Row:
    """Run a step; its answer, or how it ended, with seconds and memory."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        command = [sys.executable, "-m", "benchmarks.own_files", "--child", json.dumps(task)]
        with (Path(folder) / "log").open("w+") as log:
            start = time.perf_counter()
            process = subprocess.Popen([*command, str(answer)], stdout=log, stderr=log)
            used = wait(process, start + limit_s)
            seconds = time.perf_counter() - start
            log.seek(0)
            said = log.read()
        if answer.is_file():
            row: Row = json.loads(answer.read_text())
            if row.get("failed") == "traceback":
                row["log"] = said[-2000:]
        else:
            late = seconds >= limit_s
            row = {"failed": "time limit" if late else "killed", "log": said[-2000:]}
    return row | {"seconds": round(seconds, 1), "MB": used // 1024}


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


def line(export_row: Row, compile_row: Row | None) -> str:
    """One row of the table."""
    cells = [f"{export_row['network']:<24}{export_row['exporter']:<8}{export_row['asked']:>3}"]
    cells.append(f"{export_row.get('opset', ''):>4}{export_row.get('nodes', ''):>6}")
    if "failed" in export_row:
        cells.append(f"  not exported: {export_row.get('why', export_row['failed'])[:110]}")
    elif not export_row["runs"]:
        cells.append(f"  onnxruntime: {export_row.get('why') or export_row['error']}"[:110])
    else:
        cells.append(f"{export_row['error']:>9.0e}")
    if compile_row:
        cells.append(f"{compile_row['seconds']:>7.1f} s{compile_row['MB']:>6} MB  ")
        if "failed" in compile_row:
            cells.append(f"{compile_row['failed']}: {compile_row.get('why', '')[:160]}")
        else:
            cells.append(f"compiled, {compile_row['share_of_tolerance']:.1%} of the tolerance")
    return "".join(cells)


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
    parser.add_argument("--limit", type=float, default=900, help="seconds for one step")
    parser.add_argument("--again", action="store_true", help="compile again what has a line")
    parser.add_argument("--export-only", action="store_true")
    options = parser.parse_args()
    rows_file = options.folder / "rows.jsonl"
    known = {row["step"] + row["path"]: row for row in read_records(rows_file)}
    height, width = options.size
    wrong = 0
    for network in options.networks or list_networks():
        for exporter in options.exporters:
            for asked in options.opsets:
                name = f"{network}-{exporter}-{asked}-{height}x{width}.onnx"
                task = {
                    "network": network, "exporter": exporter, "asked": asked, "height": height,
                    "width": width, "threads": options.threads, "path": str(options.folder / name),
                }  # fmt: skip

                def step(kind: str, again: bool, task: Row = task) -> Row:
                    row = known.get(kind + task["path"])
                    if row is None or again:
                        task = task | {"step": kind}
                        row = task | in_process(task, options.limit)
                        append_record(rows_file, row)
                    return row

                exported = step("export", False)
                compiled = None
                if exported.get("runs") and not options.export_only:
                    compiled = step("compile", options.again)
                    wrong += "failed" in compiled
                print(line(exported, compiled), flush=True)
    print(f"{wrong} files that onnxruntime runs were not compiled")
    return 1 if wrong else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(json.loads(sys.argv[2]), Path(sys.argv[3]))
    else:
        sys.exit(main())
