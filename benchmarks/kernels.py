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
    spec: str  # the operation's text
    schedule: str
    microseconds: list[float]
    gflops_best: float
    fma_share_median: float | None
    probe_gflops_best: float


def workloads() -> list[Any]:
    from lut.ops import (
        Depthwise,
        GlobalPool,
        InvertedResidual,
        Labels,
        LocalGlobal,
        Logits,
        Pointwise,
        Resize,
        Stem,
        StemBlock,
        StemPair,
    )

    def pair(height: int, width: int) -> StemPair:
        stem = StemBlock(16, 8, height, width)
        return StemPair(stem, InvertedResidual(8, 48, 16, height // 2, width // 2, stride=2))

    return [
        # TinyMRMS at 256x512, in order.
        pair(256, 512),
        StemBlock(16, 8, 256, 512),
        Stem(16, 256, 512),
        InvertedResidual(16, 16, 8, 128, 256, expand=False),
        InvertedResidual(8, 48, 16, 128, 256, stride=2),
        InvertedResidual(16, 96, 16, 64, 128, residual=True),
        InvertedResidual(16, 96, 16, 64, 128, stride=2),
        InvertedResidual(16, 96, 16, 32, 64, residual=True),
        InvertedResidual(16, 96, 32, 16, 32, dilation=2),
        InvertedResidual(32, 192, 32, 16, 32, dilation=2, residual=True),
        InvertedResidual(48, 288, 48, 16, 32, dilation=2, residual=True),
        InvertedResidual(48, 288, 80, 8, 16, dilation=4),
        InvertedResidual(80, 480, 80, 8, 16, dilation=4, residual=True),
        InvertedResidual(80, 480, 160, 8, 16, dilation=4),
        Pointwise(160, 256, 8, 16, add="channel"),
        GlobalPool(160, 256, 8, 16),
        GlobalPool(16, 256, 32, 64, "sigmoid"),
        Resize(16, 32, 64, 16, 32),
        Pointwise(48, 256, 16, 32, add="low", low_height=8, low_width=16),
        Depthwise(16, 32, 64),
        LocalGlobal(16, 256, 128, 32, 64, 16, 32),
        InvertedResidual(128, 128, 19, 32, 64, expand=False),
        Labels(19, 32, 64, 256, 512),
        Logits(19, 32, 64, 256, 512),
        # The rest of the space and larger maps.
        InvertedResidual(24, 144, 24, 64, 128, 5, residual=True),
        InvertedResidual(24, 72, 24, 64, 128, 7, residual=True),
        InvertedResidual(64, 384, 64, 16, 32, 5, dilation=2, residual=True),
        InvertedResidual(160, 960, 160, 8, 16, 7, dilation=4, residual=True),
        pair(768, 1536),
        InvertedResidual(8, 48, 16, 384, 768, stride=2),
        InvertedResidual(16, 96, 16, 192, 384, residual=True),
        InvertedResidual(24, 144, 24, 256, 512, residual=True),
    ]


def inputs(func: Any, operation: Any, isa: Any) -> list[Any]:
    """Arrays for every parameter: tables where the operation resamples, else noise."""
    import numpy as np

    from deploy.bilinear import axes_of
    from deploy.cpu.kernels import module_of
    from lut.ops import Labels, LocalGlobal, Logits, Pointwise, Resize

    tables: dict[str, Any] = {}
    if isinstance(operation, Labels | Logits):
        constants = [param.name for param in func.params][1:-1]  # between the scores and y
        packed = module_of(operation).pack(operation, isa)
        tables = dict(zip(constants, packed, strict=True))
    elif isinstance(operation, Resize | LocalGlobal | Pointwise) and axes_of(operation)[0].size:
        for name, axis in zip(("row", "column"), axes_of(operation), strict=True):
            tables[f"{name}_index"], tables[f"{name}_weight"] = axis.table()
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


def measure(isa: Any, threads: int, operation: Any, rounds: int) -> Row:
    import numpy as np
    import tvm

    from deploy.cpu import probe
    from deploy.cpu.kernels import module_of
    from deploy.cpu.machine_code import compile_kernels

    module = module_of(operation)
    schedule = module.default_schedule(operation, isa, threads)
    func = module.emit(operation, schedule, isa)
    probe_spec = probe.FmaProbeSpec(threads, 4000)
    target = tvm.target.Target({"kind": "llvm", "mcpu": CPUS[isa.name], "num-cores": threads})
    library = compile_kernels(
        {"kernel": func, "probe": probe.emit_fma(probe_spec, isa)}, target
    ).mod
    arrays = [tvm.runtime.tensor(a) for a in inputs(func, operation, isa)]
    seed = np.array([0.5, 0.5], np.float32)
    ceiling = [tvm.runtime.tensor(a) for a in (seed, np.zeros((threads, isa.lanes), np.float32))]
    device = tvm.cpu()
    once = library.time_evaluator("kernel", device, number=3, repeat=1)(*arrays).mean
    number = max(1, int(3e-3 / once))
    run = library.time_evaluator("kernel", device, number=number, repeat=3)
    calibrate = library.time_evaluator("probe", device, number=2, repeat=1)
    seconds, probes, shares = [], [], []
    flops, probe_flops = 2 * operation.macs, 2 * probe_spec.macs(isa)
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
        module.__name__.rpartition(".")[2],
        str(operation),
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
    parser.add_argument("--only", default="", help="part of the operation's text, such as resize")
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
    for operation in workloads():
        if args.only not in str(operation):
            continue
        row = measure(ISAS[args.isa], args.threads, operation, args.rounds)
        share = "" if row.fma_share_median is None else f"{row.fma_share_median:5.2f}"
        print(
            f"{min(row.microseconds):9.1f} us {row.gflops_best:7.1f} GFLOP/s share {share:5} "
            f"of {row.probe_gflops_best:.0f}  {operation}",
            flush=True,
        )
        if args.json:
            with args.json.open("a") as out:
                out.write(json.dumps(asdict(row) | provenance) + "\n")


if __name__ == "__main__":
    run_main(main)
