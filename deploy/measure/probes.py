"""What a CPU can do at most, measured by kernels that do nothing else."""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import tvm

from deploy.cpu.elements import Element
from deploy.cpu.isa import Isa
from deploy.cpu.machine_code import compile_kernels
from deploy.cpu.probe import (
    FmaProbeSpec,
    ReadProbeSpec,
    emit_dot,
    emit_fma,
    emit_ones,
    emit_read,
)
from deploy.cpu.tvm_runtime import import_runtime, size_pool
from deploy.measure.ceilings import Ceilings
from deploy.measure.kernels import Here, Kernels, TvmModule
from deploy.target import Target

# Compiles PrimFuncs by name, and loads them on the machine.
Load = Callable[[Mapping[str, Any]], Kernels]

# Bytes that each thread reads: well inside L1, inside L2, inside a shared L3; then, all threads
# together, so many that they are beyond any.
_CACHE_LEVELS_BYTES = (16 << 10, 256 << 10, 4 << 20)
_MEMORY_BYTES = 256 << 20
_BYTES_PER_CALL = 256 << 20
_PAGE_BYTES = 4096
_FMA_S = 0.3


def load_here(target: Target, threads: int) -> Load:
    """How kernels are loaded into this process, where they run in so many threads of TVM's pool."""

    def load(functions: Mapping[str, Any]) -> Kernels:
        size_pool(import_runtime(), threads)
        module = compile_kernels(dict(functions), tvm.target.Target(target.config))
        return Kernels(TvmModule(module.jit(), tvm.cpu()), Here())

    return load


def probe_ceilings(
    load: Load, isa: Isa, threads: int, repeat: int = 7, elements: Collection[Element] = ()
) -> Ceilings:
    """Measure a machine with `threads` of TVM's pool; takes about two seconds. `elements` are
    those that it has instructions for (`deploy.cpu.isa.elements_of`).

    It needs 256 MiB of memory there, or 8 MiB a thread if that is more.
    """
    fma = FmaProbeSpec(tasks=threads)
    last = max(_MEMORY_BYTES // threads, 2 * _CACHE_LEVELS_BYTES[-1])
    specs = [
        ReadProbeSpec(threads, size // 4, max(1, _BYTES_PER_CALL // threads // size))
        for size in (*_CACHE_LEVELS_BYTES, last // _PAGE_BYTES * _PAGE_BYTES)
    ]
    functions = {"fma": emit_fma(fma, isa)}
    low: dict[str, Isa] = {e.name: replace(isa, element=e) for e in elements if e.name != "float32"}
    functions |= {f"dot_{dtype}": emit_dot(fma, own) for dtype, own in low.items()}
    for spec in specs:
        functions[f"read{spec.floats}"] = emit_read(spec, isa)
        functions[f"ones{spec.floats}"] = emit_ones(spec, isa)
    kernels = load(functions)
    # At first the caller may share a core with a worker, at half the rate, until it is moved.
    gflops = _best_within(lambda: fma_gflops(kernels, fma, isa, repeat))
    dots: dict[str, float] = {
        dtype: _best_within(partial(dot_gflops, kernels, fma, own, repeat))
        for dtype, own in low.items()
    }
    out = np.zeros((threads, isa.lanes), np.float32)
    reads = []
    for spec in specs:
        # Made there: memory that nobody has written is one page of zeros, and stays in L1.
        x = kernels.made_by(f"ones{spec.floats}", (threads, spec.floats))
        best_ns = min(kernels.time(f"read{spec.floats}", [x, out], repeat))
        reads.append((spec.floats * 4, spec.bytes / best_ns))
    return Ceilings(threads, gflops, tuple(reads), dots)


def _best_within(measure: Callable[[], float]) -> float:
    best, start = 0.0, time.monotonic()
    while not best or time.monotonic() - start < _FMA_S:
        best = max(best, measure())
    return best


def fma_gflops(kernels: Kernels, spec: FmaProbeSpec, isa: Isa, repeat: int) -> float:
    """The best of `repeat` calls of the kernel ``fma``, in 1e9 floating-point operations per
    second."""
    seed = np.array([1.0, 1e-9], np.float32)
    out = np.zeros((spec.tasks, isa.lanes), np.float32)
    return 2 * spec.macs(isa) / min(kernels.time("fma", [seed, out], repeat))


def dot_gflops(kernels: Kernels, spec: FmaProbeSpec, isa: Isa, repeat: int) -> float:
    """The same of the kernel that sums products of the element of `isa`."""
    seed = np.zeros(2, np.int32)  # of any value: no rate depends on it
    out = np.zeros((spec.tasks, isa.lanes), np.float32)
    name = f"dot_{isa.element.name}"
    return 2 * spec.macs(isa) / min(kernels.time(name, [seed, out], repeat))
