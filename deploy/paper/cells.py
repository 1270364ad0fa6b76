"""What stands in a table's cells: figures with their spread, and what is not known."""

from collections.abc import Sequence
from statistics import median

from deploy.bench import OURS
from deploy.measure.statistics import Ratio, ratio_of_rounds
from deploy.paper.records import Record

NONE = "-"


def milliseconds(rounds: Sequence[Sequence[int]]) -> str:
    """The median of all calls, and the range of the rounds' medians."""
    middle, *ends = _middle(rounds)
    digits = 1 if middle >= 10 else 2
    low, high = (f"{value:.{digits}f}" for value in ends)
    return f"{middle:.{digits}f} [{low}..{high}]"


def frames_per_s(rounds: Sequence[Sequence[int]]) -> str:
    """1000 / `milliseconds`, with the same range."""
    middle, low, high = (1000 / value for value in _middle(rounds))
    digits = 0 if middle >= 100 else 1 if middle >= 10 else 2
    return f"{middle:.{digits}f} [{high:.{digits}f}..{low:.{digits}f}]"


def frames_text(ms: float) -> str:
    """A frame's time as a speed, within a sentence."""
    digits = 0 if ms <= 10 else 1 if ms <= 100 else 2
    return f"{1000 / ms:.{digits}f} FPS"


def median_ms(record: Record | None, side: str = OURS) -> float | None:
    """The median of all calls of a side; None where it was not timed."""
    rounds = record.samples.get(side) if record else None
    return _middle(rounds)[0] if rounds else None


def ratio(record: Record, peer: str) -> Ratio:
    """A peer's time over ours, by rounds."""
    return ratio_of_rounds(record.samples[peer], record.samples[OURS])


def ratio_text(record: Record, peer: str) -> str:
    """It, with its range."""
    found = ratio(record, peer)
    return f"{found.median:.2f} [{found.low:.2f}..{found.high:.2f}]"


def per_s(ms: float | None) -> float | None:
    """Frames per second; None stays None."""
    return None if ms is None else 1000 / ms


def giga(macs: float) -> str:
    """Multiply-accumulates in 1e9, three digits and more."""
    return f"{macs / 1e9:.2f}" if macs < 1e11 else f"{macs / 1e9:.1f}"


def mega(parameters: float) -> str:
    """Parameters in 1e6."""
    return f"{parameters / 1e6:.2f}"


def _middle(rounds: Sequence[Sequence[int]]) -> tuple[float, float, float]:
    medians = [median(calls) / 1e6 for calls in rounds]
    return median([call for calls in rounds for call in calls]) / 1e6, min(medians), max(medians)
