"""A folder with a result of every kind: those of this repository, and what the commands write."""

import json
import shutil
from pathlib import Path
from typing import Any

from deploy.bench import BenchResult
from deploy.measure.memory import PeakMemory
from deploy.profile import KernelProfile, Profile
from lut.ops import GlobalMean, InvertedResidual, LocalGlobal
from tests.conftest import ROOT
from tests.deploy.paper.fakes import record
from tests.deploy.test_metadata import METADATA
from tests.deploy.test_profile import CEILINGS, MACHINE

RESULTS = ROOT / "benchmarks" / "results"
TABLE = ROOT / "lut" / "data" / "zen5-256x512-width0.5-2threads.jsonl.xz"
KERNELS = (
    KernelProfile("block_1", "inverted_residual", str(InvertedResidual(16, 96, 16, 64, 128)), 2,
                  0.5, 60_000_000, 1_000_000),
    KernelProfile("end_2", "local_global", str(LocalGlobal(16, 128, 64, 32, 64, 16, 32)), 1, 1.25,
                  20_000_000, 600_000),
    KernelProfile("mean_3", "global_mean", str(GlobalMean(16, 32, 64)), 1, 0.05, 0, 131_072),
)  # fmt: skip
PROFILE = Profile(KERNELS, 2.0, CEILINGS, 2, MACHINE)
FILES = (
    "bench.json", "profile.json", "check.json", "peers.jsonl", "table.jsonl.xz",
    "search/log.jsonl", "search/genotype.json", "trained/log.jsonl", "again/log.jsonl",
    "paper.jsonl",
)  # fmt: skip


def profile_json(profile: Profile = PROFILE) -> dict[str, Any]:
    """As `profile --json` prints it."""
    return {"model": "tiny-hmseg", "resolution": "64x128"} | profile.to_json()


def bench_json(profile: Profile | None = None) -> dict[str, Any]:
    """As `bench --json` prints it: onnxruntime takes three times as long."""
    samples = {"hmseg": [[1_000_000, 1_100_000, 1_200_000]] * 3,
               "onnxruntime": [[3_000_000, 3_300_000, 3_600_000]] * 3}  # fmt: skip
    result = BenchResult(
        samples, MACHINE, "the copy of the image in", 2, METADATA, profile=profile,
        absent={"TensorRT": "there is no GPU"}, differing={"onnxruntime": 0.0001},
        memory={"hmseg": PeakMemory(20_480, 40_960), "onnxruntime": PeakMemory(20_480, 81_920)},
    )  # fmt: skip
    return {"model": "tiny-hmseg", "resolution": "64x128"} | result.to_json()


def paper_json() -> dict[str, Any]:
    """A line of `hmseg-deploy paper`."""
    return record("enet", hmseg=[[2.0, 2.5]] * 2, onnxruntime=[[7.0, 8.75]] * 2).to_json()


def write_samples(folder: Path) -> Path:
    """The folder, with `FILES` in it."""
    for file in FILES:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
    (folder / "bench.json").write_text(json.dumps(bench_json(), indent=1))
    (folder / "paper.jsonl").write_text(json.dumps(paper_json()) + "\n")
    (folder / "profile.json").write_text(json.dumps(profile_json(), indent=1))
    for name, source in {
        "check.json": RESULTS / "lut-check-width0.5.json",
        "peers.jsonl": RESULTS / "any-network-amd-epyc-25-17.jsonl",
        "table.jsonl.xz": TABLE,
        "search/log.jsonl": RESULTS / "search-tiny-hmseg" / "log.jsonl",
        "search/genotype.json": RESULTS / "search-from-scratch" / "from-scratch.json",
        "trained/log.jsonl": RESULTS / "training" / "tiny-hmseg.jsonl",
        "again/log.jsonl": RESULTS / "training" / "tiny-hmseg-colour.jsonl",
    }.items():
        shutil.copyfile(source, folder / name)
    return folder
