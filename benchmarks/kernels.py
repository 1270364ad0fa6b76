"""GFLOP/s of single kernels and their share of this machine's FMA ceiling.

    python benchmarks/kernels.py --threads 1 --isa avx2 [--only inverted] [--json out.jsonl]

Each round times the FMA probe, the kernel, and the probe again, so that a slow phase of the host
hits both; the share is the median over the rounds. FLOPs are two per MAC of the real channels:
padding of the channels to whole vectors counts as loss. Inputs stay in the cache from call to
call, which flatters small maps; what decides is the whole network.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deploy.cli.console import run_main

CPUS = {"avx2": "x86-64-v3", "avx512": "x86-64-v4"}


@dataclass(frozen=True)
class Row:
    isa: str
    threads: int
    kernel: str
    spec: dict[str, Any]
    schedule: str
    microseconds: list[float]
    gflops_best: float
    fma_share_median: float | None
    probe_gflops_best: float


def workloads() -> list[Any]:
    from deploy.cpu.kernels.ends import EndSpec

    from deploy.cpu.kernels.depthwise import DepthwiseSpec
    from deploy.cpu.kernels.global_pool import GlobalPoolSpec
    from deploy.cpu.kernels.inverted_residual import InvertedResidualSpec as Block
    from deploy.cpu.kernels.local_global import LocalGlobalSpec
    from deploy.cpu.kernels.pointwise import PointwiseSpec
    from deploy.cpu.kernels.resize import ResizeSpec
    from deploy.cpu.kernels.stem import StemSpec
    from deploy.cpu.kernels.stem_block import StemBlockSpec
    from deploy.cpu.kernels.stem_pair import StemPairSpec
    from deploy.cpu.kernels.upsample_add import UpsampleAddSpec

    return [
        # TinyMRMS at 256x512, in order.
        StemPairSpec(StemBlockSpec(16, 8, 256, 512), Block(8, 48, 16, 128, 256, stride=2)),
        StemBlockSpec(16, 8, 256, 512),
        StemSpec(16, 256, 512),
        Block(16, 16, 8, 128, 256, expand=False),
        Block(8, 48, 16, 128, 256, stride=2),
        Block(16, 96, 16, 64, 128, residual=True),
        Block(16, 96, 16, 64, 128, stride=2),
        Block(16, 96, 16, 32, 64, residual=True),
        Block(16, 96, 32, 16, 32, dilation=2),
        Block(32, 192, 32, 16, 32, dilation=2, residual=True),
        Block(48, 288, 48, 16, 32, dilation=2, residual=True),
        Block(48, 288, 80, 8, 16, dilation=4),
        Block(80, 480, 80, 8, 16, dilation=4, residual=True),
        Block(80, 480, 160, 8, 16, dilation=4),
        PointwiseSpec(160, 256, 8, 16, add="channel"),
        GlobalPoolSpec(160, 256, 8, 16),
        GlobalPoolSpec(16, 256, 32, 64, "sigmoid"),
        ResizeSpec(16, 32, 64, 16, 32),
        UpsampleAddSpec(48, 256, 16, 32, 8, 16),
        DepthwiseSpec(16, 32, 64),
        LocalGlobalSpec(16, 256, 128, 32, 64, 16, 32),
        Block(128, 128, 19, 32, 64, expand=False),
        EndSpec(19, 32, 64, 256, 512),
        EndSpec(19, 32, 64, 256, 512, "logits"),
        # The rest of the space and larger maps.
        Block(24, 144, 24, 64, 128, 5, residual=True),
        Block(24, 72, 24, 64, 128, 7, residual=True),
        Block(64, 384, 64, 16, 32, 5, dilation=2, residual=True),
        Block(160, 960, 160, 8, 16, 7, dilation=4, residual=True),
        StemPairSpec(StemBlockSpec(16, 8, 768, 1536), Block(8, 48, 16, 384, 768, stride=2)),
        Block(8, 48, 16, 384, 768, stride=2),
        Block(16, 96, 16, 192, 384, residual=True),
        Block(24, 144, 24, 256, 512, residual=True),
    ]


def inputs(func: Any, spec: Any, isa: Any) -> list[Any]:
    """Arrays for every parameter: tables where the spec resamples, else noise."""
    import numpy as np

    from deploy.cpu.kernels import ends

    tables: dict[str, Any] = {}
    if hasattr(spec, "axes"):
        for name, axis in zip(("row", "column"), spec.axes, strict=True):
            tables[f"{name}_index"], tables[f"{name}_weight"] = axis.table()
    if isinstance(spec, ends.EndSpec):
        constants = [param.name for param in func.params][1:-1]  # between the scores and y
        packed = ends.pack(spec, isa)
        tables = dict(zip(constants, packed, strict=True))
    rng = np.random.default_rng(0)
    arrays = []
    for param in func.params:
        shape = [int(n) for n in param.shape]
        if param.name in tables:
            arrays.append(tables[param.name])
        elif param.dtype == "uint8":
            arrays.append(rng.integers(0, 256, shape).astype(np.uint8))
        else:
            arrays.append(rng.standard_normal(shape).astype(np.float32) * np.float32(0.1))
    return arrays


def measure(isa: Any, threads: int, spec: Any, rounds: int) -> Row:
    import numpy as np
    import tvm

    from deploy.cpu import probe
    from deploy.cpu.kernels import module_of
    from deploy.cpu.machine_code import compile_kernels

    module = module_of(spec)
    schedule = module.default_schedule(spec, isa, threads)
    func = module.emit(spec, schedule, isa)
    probe_spec = probe.FmaProbeSpec(threads, 4000)
    target = tvm.target.Target({"kind": "llvm", "mcpu": CPUS[isa.name], "num-cores": threads})
    library = compile_kernels(
        {"kernel": func, "probe": probe.emit_fma(probe_spec, isa)}, target
    ).mod
    arrays = [tvm.runtime.tensor(a) for a in inputs(func, spec, isa)]
    seed = np.array([0.5, 0.5], np.float32)
    ceiling = [tvm.runtime.tensor(a) for a in (seed, np.zeros((threads, isa.lanes), np.float32))]
    device = tvm.cpu()
    once = library.time_evaluator("kernel", device, number=3, repeat=1)(*arrays).mean
    number = max(1, int(3e-3 / once))
    run = library.time_evaluator("kernel", device, number=number, repeat=3)
    calibrate = library.time_evaluator("probe", device, number=2, repeat=1)
    seconds, probes, shares = [], [], []
    flops, probe_flops = 2 * spec.macs, 2 * probe_spec.macs(isa)
    for _ in range(rounds):
        before = calibrate(*ceiling).mean
        now = min(run(*arrays).results)
        after = calibrate(*ceiling).mean
        seconds.append(now)
        probes.append(probe_flops / min(before, after) / 1e9)
        shares.append(flops / now / 1e9 / (probe_flops * 2 / (before + after) / 1e9))
    return Row(
        isa.name,
        threads,
        type(spec).__name__.removesuffix("Spec"),
        asdict(spec),
        str(schedule),
        [s * 1e6 for s in seconds],
        flops / min(seconds) / 1e9,
        statistics.median(shares) if flops else None,
        max(probes),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--isa", choices=CPUS, default="avx2")
    parser.add_argument("--only", default="", help="part of the kernel's name")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="append rows with provenance")
    args = parser.parse_args()
    os.environ["TVM_NUM_THREADS"] = str(args.threads)
    import tvm

    from deploy.cpu.isa import ISAS

    provenance = {
        "machine": platform.processor() or platform.machine(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "tvm": tvm.__version__,
    }
    for spec in workloads():
        if args.only.lower() not in type(spec).__name__.lower():
            continue
        row = measure(ISAS[args.isa], args.threads, spec, args.rounds)
        share = "" if row.fma_share_median is None else f"{row.fma_share_median:5.2f}"
        print(
            f"{min(row.microseconds):9.1f} us {row.gflops_best:7.1f} GFLOP/s share {share:5} "
            f"of {row.probe_gflops_best:.0f}  {spec}",
            flush=True,
        )
        if args.json:
            with args.json.open("a") as out:
                out.write(json.dumps(asdict(row) | provenance) + "\n")


if __name__ == "__main__":
    run_main(main)
