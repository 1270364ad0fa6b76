"""What making a network in 8 bits takes: seconds of calibrating and compiling, bytes of the file.

    python -m benchmarks.int8_compile --data CAMVID [--resolutions 256x512 360x480] [-o FILE]

Times the whole of `hmseg-deploy compile --model tiny-hmseg --precision int8 --no-cache
--calibrate CAMVID/train` from outside: Python's start, the export, 100 frames, the compilation, the
parity gate and its timing. Once for each size; let nothing else run. The file holds the drawn
street that it is verified by, so that it grows with the size. Exit code 1 where more than
`MOST_SECONDS` pass, or where that of the first size has more than `MOST_BYTES`.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from deploy import host
from deploy.cli.console import print_table, run_main
from deploy.quantise.request import MOST
from lut.errors import WorkError
from lut.files import check_writable, write_atomic

MODEL = "tiny-hmseg"
RESOLUTIONS = ("256x512", "360x480")
MOST_SECONDS, MOST_BYTES = 60, 900_000
TOOLS = ("hmseg", "torch", "onnxruntime", "apache-tvm")


def measure(frames: Path, resolution: str, most: int, folder: Path) -> dict[str, Any]:
    """One run of the command; raises WorkError where it fails."""
    made = folder / f"{resolution}.hmseg"
    command = [
        sys.executable, "-m", "deploy.cli.hmseg_deploy", "compile", "--model", MODEL,
        "--resolution", resolution, "--precision", "int8", "--calibrate", str(frames),
        "--calibrate-frames", str(most), "--no-cache", "-o", str(made),
    ]  # fmt: skip
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise WorkError(f"{MODEL} {resolution} is not compiled: {done.stderr.strip()[-300:]}")
    return {
        "model": MODEL, "resolution": resolution, "frames": most, "seconds": round(seconds, 1),
        "bytes": made.stat().st_size,
    }  # fmt: skip


def passed(rows: list[dict[str, Any]]) -> bool:
    """Whether the bars are met; that of bytes is of the first size."""
    return rows[0]["bytes"] <= MOST_BYTES and all(r["seconds"] <= MOST_SECONDS for r in rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--resolutions", nargs="+", default=RESOLUTIONS)
    parser.add_argument("--frames", type=int, default=MOST)
    parser.add_argument("-o", "--out", type=Path)
    options = parser.parse_args()
    if options.out:
        check_writable(options.out)
    with TemporaryDirectory() as folder:
        rows = [
            measure(options.data / "train", size, options.frames, Path(folder))
            for size in options.resolutions
        ]
    print_table(
        f"{MODEL} in int8, {host.cpu_model()}", ("size", "s", "bytes"),
        [(row["resolution"], f"{row['seconds']:.1f}", f"{row['bytes']:,}") for row in rows],
    )  # fmt: skip
    if options.out:
        record = {
            "date": datetime.now(UTC).date().isoformat(),
            "machine": host.cpu_model(),
            "cores": len(os.sched_getaffinity(0)),
            "versions": {tool: version(tool) for tool in TOOLS},
            "rows": rows,
        }
        write_atomic(options.out, json.dumps(record, indent=1) + "\n")
    return int(not passed(rows))


if __name__ == "__main__":
    run_main(main)
