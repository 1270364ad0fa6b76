"""The range of a map that 8 bits are spread over, by what was seen of it: three methods, and the
error of each."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deploy.quantise.scales import LEVELS, Range, grid_of, on_grid

MIN_MAX, PERCENTILE, ENTROPY = "min-max", "percentile", "entropy"
METHODS = (MIN_MAX, PERCENTILE, ENTROPY)
CUT_OFF = 1e-4  # share of the elements that the percentile leaves out, half at either end
_BINS = 2040  # of the histogram that the entropy is taken of: eight for each level
_SHARES = np.linspace(1.0, 0.3, 36)  # of the whole range that are tried by entropy


@dataclass(frozen=True)
class Seen:
    """Of one map: the least and the largest element of all frames, and some of the elements,
    float32, taken evenly over channels, rows and columns."""

    low: float
    high: float
    sample: NDArray[np.float32]

    @property
    def whole(self) -> Range:
        """From the least to the largest."""
        return Range(self.low, self.high)

    def merged(self, other: "Seen") -> "Seen":
        """Of two maps that have one scale."""
        whole = self.whole.union(other.whole)
        return Seen(whole.low, whole.high, np.concatenate([self.sample, other.sample]))


def ranges_of(seen: Seen) -> Mapping[str, Range]:
    """What each method makes of a map."""
    return {MIN_MAX: seen.whole, PERCENTILE: _percentile(seen), ENTROPY: _entropy(seen)}


def error_of(seen: Seen, found: Range) -> float:
    """The mean square of what rounding and saturation to the range's grid change in the sample."""
    off = on_grid(seen.sample, grid_of(found)) - seen.sample
    return float(np.mean(np.square(off, dtype=np.float64))) if off.size else 0.0


def _percentile(seen: Seen) -> Range:
    """An end at zero, as behind a ReLU, stays there."""
    if not seen.sample.size:
        return seen.whole
    low, high = np.quantile(seen.sample, [CUT_OFF / 2, 1 - CUT_OFF / 2])
    return Range(
        min(0.0, float(low)) if seen.low < 0 else seen.low,
        max(0.0, float(high)) if seen.high > 0 else seen.high,
    )


def _entropy(seen: Seen) -> Range:
    """The range, both ends moved towards zero alike, whose levels tell the least apart from what
    they stand for: the least Kullback-Leibler divergence (Migacz, "8-bit inference with TensorRT",
    GTC 2017). Zeros are left out, which are on every grid, and so is what lies at either end, as
    much does behind a Clip, where that end is the grid's: no level has to stand for others there.
    """
    whole = seen.whole.with_zero()
    ends = [seen.sample == np.float32(end) for end in (whole.low, whole.high)]
    sample = seen.sample[~(ends[0] | ends[1] | (seen.sample == 0))]
    if not whole.high - whole.low > 0 or not sample.size:
        return seen.whole
    counts, edges = np.histogram(sample, _BINS, (whole.low, whole.high))
    at_ends = (int(ends[0].sum()) if whole.low < 0 else 0, int(ends[1].sum()))
    best, least = whole, np.inf
    for share in _SHARES:
        low, high = whole.low * share, whole.high * share
        first, last = np.searchsorted(edges, [low, high])
        first, last = max(0, first - 1) if low < 0 else 0, min(_BINS, last)
        if last - first < LEVELS:
            break
        beyond = (
            int(counts[:first].sum()) + (at_ends[0] if first else 0),
            int(counts[last:].sum()) + (at_ends[1] if last < _BINS else 0),
        )
        divergence = _divergence(counts[first:last], beyond)
        if divergence < least:
            best, least = Range(float(edges[first]), float(edges[last])), divergence
    return best


def _divergence(counts: NDArray[np.int64], beyond: tuple[int, int]) -> float:
    """Of the bins between two ends, to which what lies `beyond` is moved, and the same told apart
    by `LEVELS` levels alone, whose counts are spread over those of their bins that are not
    empty."""
    inside = counts.astype(np.float64)
    held = inside.copy()
    held[0] += beyond[0]
    held[-1] += beyond[1]
    starts = np.linspace(0, len(inside), LEVELS + 1).astype(np.int64)[:-1]
    filled = held > 0
    sums = np.add.reduceat(inside, starts)
    kinds = np.add.reduceat(filled.astype(np.float64), starts)
    widths = np.diff(np.append(starts, len(inside)))
    spread = np.repeat(sums / np.maximum(kinds, 1), widths) * filled
    p, q = held / held.sum(), spread / max(spread.sum(), 1)
    seen = p > 0
    # A bin that holds only what was cut off has nothing to compare with: a tenth of one count.
    least = 0.1 / held.sum()
    divergence = float((p[seen] * np.log(p[seen] / np.maximum(q[seen], least))).sum())
    # Counts of few elements differ by chance: as if by this much (Miller and Madow, 1955), which
    # without the subtraction would be saved by leaving bins out.
    chance = (np.count_nonzero(filled) - np.count_nonzero(kinds)) / (2 * held.sum())
    return divergence - float(chance)
