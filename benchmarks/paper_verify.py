"""Every network of the paper at its sizes there: torch, onnxruntime and the binary, five images.

    python -m benchmarks.paper_verify
    python -m benchmarks.paper_verify table1 table3 --threads 1

For each network the check of `hmseg-deploy verify --model NAME --resolution SIZE`, with the weights
that `hmseg-deploy paper` times, and how many kernels are left to TVM. One line each is appended to
benchmarks/results/verify-paper.jsonl; what is there of this machine, these versions and this
network already is not done again. docs/paper.md shows them. Exits with 1 if anything failed. The
seconds are those of the whole check, not of a call.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.results_lib.store import FOLDER
from deploy import host
from deploy.artifact import TVM
from deploy.build import TOOLS, build_source
from deploy.object_cache import default_cache
from deploy.paper.jobs import Job
from deploy.paper.measure import unexpected
from deploy.paper.networks import NoRoomError, count, open_network
from deploy.paper.run import jobs_of
from deploy.paper.views import VIEWS, choose_views
from deploy.targets import resolve_target
from deploy.verify import Comparison, probe_images, require, verify_torch
from lut import jsonl
from lut.errors import HmsegError

COMMAND = "python -m benchmarks.paper_verify"
RESULTS = FOLDER / "verify-paper.jsonl"
# Figure 6 has the networks of Table 5 at sizes between those of the tables.
DEFAULT = tuple(name for name in VIEWS if name != "figure6")


@dataclass(frozen=True)
class Verified:
    """One line: `shares` by side, the worst error of all images as a share of what is allowed."""

    network: str
    resolution: str
    classes: int
    macs: int
    parameters: int
    cpu: str
    threads: int
    versions: dict[str, str]
    date: str
    seconds: float
    images: int = 0
    left_to_tvm: int = 0  # kernels
    shares: dict[str, float] | None = None
    failed: str = ""

    @property
    def what(self) -> tuple[object, ...]:
        """What need not be done twice."""
        versions = tuple(sorted(self.versions.items()))
        counts = (self.macs, self.parameters)
        return self.network, self.resolution, self.classes, *counts, self.cpu, versions


def read(path: Path = RESULTS) -> list[Verified]:
    """The newest line of each network, size and machine; raises UserError for a damaged file."""
    lines = [Verified(**line) for line in jsonl.read_records(path)]
    return list({(v.network, v.resolution, v.classes, v.cpu): v for v in lines}.values())


def verify(job: Job, threads: int) -> Verified:
    """One network; what fails, in whatever way, is in the line. Raises NoRoomError."""
    start = time.perf_counter()
    macs = parameters = images = left = 0
    failed = ""
    shares: dict[str, float] | None = None
    try:
        macs, parameters = count(job)
        source = open_network(job)
        artifact, comparisons = build_source(
            source, resolve_target("cpu"), threads=threads, cache=default_cache()
        )
        left = sum(kernel.template == TVM for kernel in artifact.kernels)
        if source.network is not None:
            probes = probe_images(source.metadata.resolution, artifact.golden.image)
            comparisons = verify_torch(source.network, source.graph, probes) + comparisons
        images, shares = len({c.image for c in comparisons}), worst(comparisons)
        require(comparisons)
    except NoRoomError:
        raise
    except HmsegError as error:
        failed = str(error)
    except Exception as error:  # a mistake of ours: the other networks are checked
        failed = unexpected(error)
    seconds = round(time.perf_counter() - start, 1)
    versions = {tool: version(tool) for tool in TOOLS}
    return Verified(
        job.network, str(job.resolution), job.classes, macs, parameters, host.cpu_model(), threads,
        versions, datetime.now(UTC).isoformat(timespec="seconds"), seconds, images, left, shares,
        failed,
    )  # fmt: skip


def worst(comparisons: Sequence[Comparison]) -> dict[str, float]:
    """By side the largest error, as a share of what is allowed."""
    found: dict[str, float] = {}
    for one in comparisons:
        found[one.side] = max(found.get(one.side, 0.0), one.share_of_tolerance)
    return found


def jobs(names: Sequence[str]) -> list[Job]:
    """Each network at each size once, profiled or not."""
    return [Job(j.network, j.resolution, j.classes) for j in jobs_of(choose_views(names))]


def known(job: Job, threads: int, done: Sequence[Verified]) -> bool:
    """Whether today's network passed on this machine with these versions."""
    versions = {tool: version(tool) for tool in TOOLS}
    now = Verified(
        job.network, str(job.resolution), job.classes, *count(job), host.cpu_model(), threads,
        versions, "", 0.0,
    )  # fmt: skip
    return any(one.what == now.what and not one.failed for one in done)


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 0 all passed, 1 one did not, 2 a name or a file is wrong."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__.splitlines()[0])
    parser.add_argument("views", nargs="*", default=DEFAULT, help="table1 ... figure6, or all")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("-o", "--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    try:
        done = read(options.out)
        failed = 0
        for job in jobs(options.views):
            if known(job, options.threads, done):
                print(f"{job}: passed before")
                continue
            one = verify(job, options.threads)
            jsonl.append_record(options.out, vars(one))
            failed += bool(one.failed)
            print(f"{job}: {describe(one)}", flush=True)
    except HmsegError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 1 if failed else 0


def describe(one: Verified) -> str:
    """Its result in words."""
    if one.failed:
        return f"FAILED: {one.failed}"
    sides = ", ".join(f"{side} {share:.0%}" for side, share in (one.shares or {}).items())
    left = f", {one.left_to_tvm} kernels left to TVM" if one.left_to_tvm else ""
    return f"{sides} of what is allowed on {one.images} images{left}; {one.seconds:.0f} s"


if __name__ == "__main__":
    sys.exit(main())
