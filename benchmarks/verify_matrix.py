"""Verify the zoo and random genotypes at several sizes: torch, onnxruntime and TVM, five images.

    python benchmarks/verify_matrix.py
    python benchmarks/verify_matrix.py --resolutions 64x64 75x125 --genotypes 1 --models tiny-mrms

Weights, batch norms and the balance of the classes are random (hmseg.testing). Prints a table and
writes the JSON file, with machine, versions, date and command; exits with 1 if anything failed.
The seconds are those of the whole check, not of a call.
"""

import argparse
import json
import os
import platform
import random
import shlex
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from deploy import host
from deploy.build import TOOLS, build_artifact
from deploy.graph.export import export_network
from deploy.resolution import Resolution, parse_resolution
from deploy.targets import resolve_target
from deploy.verify import Comparison, probe_images, verify_torch
from hmseg import zoo
from hmseg.genotype import random_genotype
from hmseg.mrms import MRMSConfig
from hmseg.testing import random_network
from lut.errors import HmsegError
from lut.files import check_writable, write_atomic

RESULTS = Path(__file__).parent / "results" / "verify-matrix.json"
RESOLUTIONS = tuple(parse_resolution(text) for text in ("256x512", "360x480", "375x1242"))


def networks(models: list[str], genotypes: int) -> dict[str, MRMSConfig]:
    """The zoo's names, then genotypes drawn from seeds 1, 2, ..., every second at half width."""
    found = {name: zoo.entry(name).config for name in models}
    for seed in range(1, genotypes + 1):
        genotype, width = random_genotype(random.Random(seed)), (1.0, 0.5)[seed % 2 == 0]
        found[f"genotype {seed}, width {width:g}"] = MRMSConfig(genotype=genotype, width=width)
    return found


def verify(config: MRMSConfig, name: str, size: Resolution, threads: int) -> dict[str, Any]:
    """One row: the worst of each side over the images, or the error."""
    start = time.perf_counter()
    row: dict[str, Any] = {
        "model": name, "genotype": str(config.genotype), "width": config.width,
        "resolution": str(size),
    }  # fmt: skip
    try:
        model = random_network(config)
        graph = export_network(model, name, size, num_classes=config.num_classes)
        artifact, comparisons = build_artifact(graph, resolve_target("cpu"), threads=threads)
        images = probe_images(size, artifact.golden.image)
        comparisons += verify_torch(model, graph, images)
        row |= {
            "passed": all(comparison.passed for comparison in comparisons),
            "images": list(images),
            **{side: worst(comparisons, side) for side in ("tvm", "torch")},
        }
    except HmsegError as error:
        row |= {"passed": False, "error": str(error)}
    return row | {"seconds": round(time.perf_counter() - start, 1)}


def worst(comparisons: list[Comparison], side: str) -> dict[str, float]:
    """The largest error, as a share of what is allowed too, and the most pixels that differ."""
    mine = [c for c in comparisons if c.side == side]
    return {
        "max_logit_error": max(c.max_logit_error for c in mine),
        "max_share_of_tolerance": max(c.max_logit_error / c.tolerance for c in mine),
        "max_differing_share": max(c.differing_share for c in mine),
        "max_unexplained_share": max(c.unexplained_share for c in mine),
    }


def line(row: dict[str, Any]) -> str:
    """One row of the table."""
    head = f"{row['model']:<24} {row['resolution']:>9} "
    if "error" in row:
        return f"{head} FAILED: {row['error']}"
    cells = "".join(
        f"{row[side]['max_logit_error']:>10.1e} ({row[side]['max_share_of_tolerance']:>4.0%})"
        f"{row[side]['max_differing_share']:>10.4%}"
        for side in ("tvm", "torch")
    )
    return f"{head}{cells}{row['seconds']:>8.1f} {'yes' if row['passed'] else 'NO':>6}"


def main() -> int:
    """Run the matrix."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="*", default=zoo.list_own())
    parser.add_argument("--genotypes", type=int, default=5, help="how many random ones")
    parser.add_argument("--resolutions", nargs="*", default=RESOLUTIONS, type=parse_resolution)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--json", type=Path, default=RESULTS, help="where to write")
    options = parser.parse_args()
    check_writable(options.json)
    print(f"{'':<24} {'':>9} {'tvm: error (of allowed), pixels':>27} {'torch: the same':>27}")
    rows = []
    for name, config in networks(options.models, options.genotypes).items():
        for size in options.resolutions:
            rows.append(verify(config, name, size, options.threads))
            print(line(rows[-1]), flush=True)
    result = {
        "command": shlex.join(["python", "benchmarks/verify_matrix.py", *sys.argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {
            "cpu": host.cpu_model(),
            "architecture": host.architecture(),
            "threads": options.threads,
            "system": platform.platform(),
        },
        "versions": {tool: version(tool) for tool in TOOLS} | {"python": sys.version.split()[0]},
        "rows": rows,
    }
    write_atomic(options.json, json.dumps(result, indent=1) + "\n")
    failed = [row for row in rows if not row["passed"]]
    print(f"{len(rows) - len(failed)} of {len(rows)} passed; written to {options.json}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
