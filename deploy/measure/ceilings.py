"""What a machine can do at most: multiply-adds, and reading from each cache level."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Ceilings:
    """All threads together. `reads` are (bytes per thread, 1e9 bytes per second), growing.

    `dot_gflops` are those of sums of products in low precision, by the type of the factors, where
    the machine has instructions for them.
    """

    threads: int
    fma_gflops: float
    reads: tuple[tuple[int, float], ...]
    dot_gflops: Mapping[str, float] = field(default_factory=dict)

    def gflops(self, dtype: str) -> float:
        """The rate of multiply-adds on maps of this type."""
        return self.dot_gflops.get(dtype, self.fma_gflops)

    def __str__(self) -> str:
        low = [f"{rate:.1f} in {dtype}" for dtype, rate in self.dot_gflops.items()]
        return ", ".join([f"{self.fma_gflops:.1f} GFLOP/s", *low])

    @property
    def highest_gflops(self) -> float:
        """Of any type."""
        return max([self.fma_gflops, *self.dot_gflops.values()])

    def read_gbytes_per_s(self, size: int) -> float:
        """The rate at which a working set of `size` bytes, shared by the threads, can be read."""
        for level, rate in self.reads:
            if size <= level * self.threads:
                return rate
        return self.reads[-1][1]
