"""What this machine can do at most, measured: multiply-adds, and reading from each cache level."""

import time
from dataclasses import dataclass

import numpy as np

from deploy.kernels.ir import compile_kernels
from deploy.kernels.isa import Isa
from deploy.kernels.probe import FmaProbeSpec, ReadProbeSpec, emit_fma, emit_read
from deploy.targets import Target

# Bytes that each thread reads: well inside L1, inside L2, inside a shared L3, and beyond any.
READ_LEVELS_BYTES = (16 << 10, 256 << 10, 4 << 20, 128 << 20)
_BYTES_PER_CALL = 256 << 20


@dataclass(frozen=True)
class Ceilings:
    """All threads together. `reads` are (bytes per thread, 1e9 bytes per second), growing."""

    threads: int
    fma_gflops: float
    reads: tuple[tuple[int, float], ...]

    def read_gbytes_per_s(self, size: int) -> float:
        """The rate at which a working set of `size` bytes, shared by the threads, can be read."""
        for level, rate in self.reads:
            if size <= level * self.threads:
                return rate
        return self.reads[-1][1]


class FmaProbe:
    """Measures the FMA rate in a few milliseconds, again and again: slow phases show."""

    def __init__(self, target: Target, isa: Isa, threads: int) -> None:
        import tvm

        self.spec = FmaProbeSpec(tasks=threads)
        self._macs = self.spec.macs(isa)
        module = compile_kernels(
            {"fma": emit_fma(self.spec, isa)}, tvm.target.Target(target.config)
        )
        self._call = module["fma"]
        self._seed = tvm.runtime.tensor(np.array([1.0, 1e-9], np.float32))
        self._out = tvm.runtime.tensor(np.zeros((threads, isa.lanes), np.float32))

    def gflops(self, repeat: int = 5) -> float:
        """The best of `repeat` calls, in 1e9 floating-point operations per second."""
        best_ns = min(_time_ns(lambda: self._call(self._seed, self._out)) for _ in range(repeat))
        return 2 * self._macs / best_ns


def probe_ceilings(target: Target, isa: Isa, threads: int, repeat: int = 7) -> Ceilings:
    """Measure this machine with `threads` of TVM's pool; takes about three seconds."""
    import tvm

    fma = FmaProbe(target, isa, threads).gflops(repeat)
    specs = {
        size: ReadProbeSpec(threads, size // 4, max(1, _BYTES_PER_CALL // threads // size))
        for size in READ_LEVELS_BYTES
    }
    module = compile_kernels(
        {f"read{size}": emit_read(spec, isa) for size, spec in specs.items()},
        tvm.target.Target(target.config),
    )
    out = tvm.runtime.tensor(np.zeros((threads, isa.lanes), np.float32))
    reads = []
    for size, spec in specs.items():
        x = tvm.runtime.tensor(np.ones((threads, spec.floats), np.float32))
        call = module[f"read{size}"]
        best_ns = min(_time_ns(lambda call=call, x=x: call(x, out)) for _ in range(repeat))
        reads.append((size, spec.bytes / best_ns))
    return Ceilings(threads, fma, tuple(reads))


def _time_ns(call: object) -> int:
    assert callable(call)
    start = time.perf_counter_ns()
    call()
    return time.perf_counter_ns() - start
