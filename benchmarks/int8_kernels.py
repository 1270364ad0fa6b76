"""Kernels in int8 beside the same in float32, one thread, maps in the caches:

    python -m benchmarks.int8_kernels [--filter WORD]

A line per operation: microseconds in float32 and in int8, the best of many calls, and how many times
as fast the latter is.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import tvm

from deploy.cpu.isa import AVX512, AVX512_INT8, Isa
from deploy.cpu.kernels import module_of
from deploy.cpu.machine_code import compile_kernels
from lut.ops import Operation, parse_operation

CPU = "znver4"
INT8 = AVX512_INT8["avx512vnni"]
OPERATIONS = (
    "pointwise cin=64 cout=64 height=64 width=128",
    "pointwise cin=128 cout=256 height=32 width=64",
    "pointwise cin=96 cout=24 height=64 width=128",
    "pointwise cin=24 cout=144 height=32 width=64",
    "pointwise cin=320 cout=256 height=16 width=32",
    "inverted_residual cin=16 hidden=96 cout=16 height=64 width=128 residual=yes",
    "inverted_residual cin=16 hidden=96 cout=16 height=64 width=128 stride=2",
    "inverted_residual cin=32 hidden=192 cout=32 height=16 width=32 dilation=2 residual=yes",
    "inverted_residual cin=48 hidden=288 cout=48 height=16 width=32 dilation=2 residual=yes",
    "inverted_residual cin=80 hidden=480 cout=80 height=8 width=16 dilation=4 residual=yes",
    "inverted_residual cin=24 hidden=144 cout=24 height=64 width=128 kernel=5 residual=yes",
    "inverted_residual cin=24 hidden=72 cout=24 height=64 width=128 kernel=7 residual=yes",
    "inverted_residual cin=160 hidden=960 cout=160 height=8 width=16 kernel=7 dilation=4 residual=yes",
    "inverted_residual cin=16 hidden=96 cout=16 height=192 width=384 residual=yes",
    "inverted_residual cin=128 hidden=128 cout=19 height=32 width=64 expand=no",
)


def time_us(op: Operation, isa: Isa, budget_s: float) -> float:
    """Of one call, the fastest within the budget. The arguments are what the PrimFunc says."""
    module = module_of(op)
    func = module.emit(op, module.default_schedule(op, isa, 1), isa)
    target = tvm.target.Target({"kind": "llvm", "mcpu": CPU, "num-cores": 2})
    library = compile_kernels({"main": func}, target)
    rng = np.random.default_rng(1)
    arguments: list[Any] = []
    for buffer in func.params:
        shape = [int(extent) for extent in buffer.shape]
        if str(buffer.dtype) == "float32":
            array = rng.uniform(-0.1, 0.1, shape).astype(np.float32)
        elif "index" in buffer.name or "interval" in buffer.name:
            array = np.zeros(shape, buffer.dtype)
        else:
            array = rng.integers(0, 100, shape).astype(str(buffer.dtype))
        arguments.append(tvm.runtime.tensor(array))
    call = library["main"]
    call(*arguments)
    best, end = float("inf"), time.perf_counter() + budget_s
    while time.perf_counter() < end:
        start = time.perf_counter()
        call(*arguments)
        best = min(best, time.perf_counter() - start)
    return best * 1e6


def main(arguments: Sequence[str] | None = None) -> None:
    """As the module says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--filter", default="", help="only operations whose text contains it")
    parser.add_argument("--seconds", type=float, default=0.5, help="for each kernel")
    options = parser.parse_args(arguments)
    for text in OPERATIONS:
        if options.filter not in text:
            continue
        op = parse_operation(text)
        plain = time_us(op, AVX512, options.seconds)
        # The saturation is the activation.
        quantised = replace(op, act="none") if hasattr(op, "act") else op
        narrow = time_us(quantised, INT8, options.seconds)
        rate = op.macs / 1e3
        print(
            f"{text:60} {plain:8.1f} {narrow:8.1f} us {plain / narrow:5.2f}  "
            f"{rate / plain:6.0f} {rate / narrow:6.0f} GMAC/s"
        )


if __name__ == "__main__":
    main()
