"""Summaries of samples; the raw samples are kept beside them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Summary:
    """One side's latencies in milliseconds."""

    n: int
    min_ms: float
    mean_ms: float
    median_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    std_ms: float


def summarise(samples_ns: Sequence[int]) -> Summary:
    """Summarise at least one sample, in nanoseconds; percentiles interpolate linearly."""
    ms = np.asarray(samples_ns, np.float64) / 1e6
    p90, p95, p99 = np.percentile(ms, [90, 95, 99])
    return Summary(
        n=len(ms),
        min_ms=float(ms.min()),
        mean_ms=float(ms.mean()),
        median_ms=float(np.median(ms)),
        p90_ms=float(p90),
        p95_ms=float(p95),
        p99_ms=float(p99),
        std_ms=float(ms.std(ddof=1)) if len(ms) > 1 else 0.0,
    )


def percentile_ms(samples_ns: Sequence[int], percentile: float) -> float:
    """One percentile, 0 to 100, in milliseconds."""
    return float(np.percentile(np.asarray(samples_ns, np.float64), percentile) / 1e6)


@dataclass(frozen=True)
class Ratio:
    """Peer's time over ours, a value for each round of the run; above 1 we are faster."""

    median: float
    low: float
    high: float
    rounds: int


def ratio_of_rounds(peer: Sequence[Sequence[int]], ours: Sequence[Sequence[int]]) -> Ratio:
    """The ratio of the medians of each round, then the median and range over the rounds."""
    ratios = [float(np.median(p) / np.median(o)) for p, o in zip(peer, ours, strict=True)]
    return Ratio(float(np.median(ratios)), min(ratios), max(ratios), len(ratios))
