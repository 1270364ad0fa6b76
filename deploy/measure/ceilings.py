"""What a machine can do at most: multiply-adds, and reading from each cache level."""

from dataclasses import dataclass


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
