"""Kernels in int8 beside the same in float32, one thread, maps in the caches:

    python -m benchmarks.int8_kernels [--filter WORD] [--unit avx2]

A line per operation: microseconds in float32 and in int8, the best of many calls, how many times as
fast the latter is, and the rates of both.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import tvm

from deploy.cpu.isa import AVX2, AVX2_INT8, AVX512, AVX512_INT8, Isa
from deploy.cpu.kernels import module_of
from deploy.cpu.machine_code import compile_kernels
from lut.ops import Operation, StemPair, parse_operation, with_dtype

# By what multiplies bytes: a CPU of LLVM's, the instruction sets in float32 and in int8.
UNITS = {
    "avx512vnni": ("znver4", AVX512, AVX512_INT8["avx512vnni"]),
    "avx512bw": ("x86-64-v4", AVX512, AVX512_INT8["avx512bw"]),
    "avxvnni": ("sierraforest", AVX2, AVX2_INT8["avxvnni"]),
    "avx2": ("x86-64-v3", AVX2, AVX2_INT8["avx2"]),
}
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
    "inverted_residual cin=160 hidden=960 cout=160 height=8 width=16 kernel=7 dilation=4 "
    "residual=yes",
    "inverted_residual cin=16 hidden=96 cout=16 height=192 width=384 residual=yes",
    "inverted_residual cin=128 hidden=128 cout=19 height=32 width=64 expand=no",
    "stem cout=16 height=256 width=512",
    "stem cout=32 height=256 width=512",
    "stem_block hidden=16 cout=8 height=256 width=512",
    "stem_pair first=( stem_block hidden=16 cout=8 height=256 width=512 ) "
    "second=( inverted_residual cin=8 hidden=48 cout=16 height=128 width=256 stride=2 )",
    "local_global cin=16 mid=256 cout=128 height=32 width=64 low_height=16 low_width=32",
    "pointwise cin=48 cout=256 height=16 width=32 add=low low_height=8 low_width=16",
    "depthwise channels=64 height=64 width=128",
    "global_pool cin=160 cout=256 height=8 width=16",
    "global_mean channels=64 height=64 width=128",
    "resize channels=64 height=32 width=64 out_height=64 out_width=128",
    "concat cin=24,32 height=64 width=128",
    "conv cin=64 cout=64 height=64 width=128 kernel=3,3 pad=1,1,1,1",
    "conv cin=128 cout=128 height=32 width=64 kernel=3,3 pad=1,1,1,1",
    "conv cin=256 cout=256 height=16 width=32 kernel=3,3 pad=1,1,1,1",
    "conv cin=512 cout=512 height=8 width=16 kernel=3,3 pad=1,1,1,1",
    "conv cin=64 cout=128 height=64 width=128 kernel=3,3 stride=2,2 pad=1,1,1,1",
    "conv cin=3 cout=64 height=256 width=512 kernel=7,7 stride=2,2 pad=3,3,3,3 source=uint8_nhwc",
    "conv cin=64 cout=64 height=64 width=128 kernel=3,3 pad=1,1,1,1 then=add,relu",
    "pool channels=64 height=128 width=256 kernel=3,3 stride=2,2 pad=1,1,1,1",
    "elementwise channels=64 height=64 width=128 then=add,relu",
    "labels_end classes=19 height=32 width=64 out_height=256 out_width=512",
)


def time_us(op: Operation, isa: Isa, cpu: str, budget_s: float) -> float:
    """Of one call, the fastest within the budget. The arguments are what the PrimFunc says."""
    module = module_of(op)
    func = module.emit(op, module.default_schedule(op, isa, 1), isa)
    target = tvm.target.Target({"kind": "llvm", "mcpu": cpu, "num-cores": 2})
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


def saturating(op: Any) -> Any:
    """Without activations: the bytes of its maps do their work."""
    if isinstance(op, StemPair):
        return StemPair(saturating(op.first), saturating(op.second))
    names = {field.name for field in fields(op)} & {"act", "stem_act", "mid_act"}
    op = replace(op, **dict.fromkeys(names, "none"))
    steps = getattr(op, "then", ())
    return replace(op, then=steps[:-1]) if steps[-1:] == ("relu",) else op


def main(arguments: Sequence[str] | None = None) -> None:
    """As the module says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--filter", default="", help="only operations whose text contains it")
    parser.add_argument("--seconds", type=float, default=0.5, help="for each kernel")
    parser.add_argument("--unit", choices=UNITS, default="avx512vnni", help="what multiplies")
    options = parser.parse_args(arguments)
    cpu, wide, bytes_ = UNITS[options.unit]
    for text in OPERATIONS:
        if options.filter not in text:
            continue
        op = parse_operation(text)
        plain = time_us(op, wide, cpu, options.seconds)
        narrow = time_us(with_dtype(saturating(op), "int8"), bytes_, cpu, options.seconds)
        rate = op.macs / 1e3
        print(
            f"{text[:100]:100} {plain:8.1f} {narrow:8.1f} us {plain / narrow:5.2f}  "
            f"{rate / plain:6.0f} {rate / narrow:6.0f} GMAC/s"
        )


if __name__ == "__main__":
    main()
