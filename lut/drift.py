"""How a machine differs from the one of a table's day: in speed, in scale, or in single entries.

The reference network says how fast the machine is. What else has changed shows in the entries of
the calibration networks, which have the same neighbours then and now: where all have changed alike
it is a scale, which a fit takes up (`lut.estimate`); where some have not, the table is another
machine's.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from lut.errors import UserError
from lut.ops import Operation
from lut.record import Visit
from lut.retiming import Retiming
from lut.table import Table, summarise

MOVED = 0.10  # of an entry beside the others, beyond what its own noise explains
MOST_MOVED = 0.02  # of the networks' time, by entries that moved: above it the table is refused


@dataclass(frozen=True)
class Movement:
    """An entry beside the others: `change` is relative, `share` what it is of the networks' time.

    `noise` is half the 95% interval of the change.
    """

    entry: Operation
    change: float
    noise: float
    share: float

    @property
    def moved(self) -> bool:
        """Whether it changed otherwise than the others, whatever its noise."""
        return abs(self.change) - self.noise > MOVED


@dataclass(frozen=True)
class Drift:
    """From a table's day to a retiming's. `reference_us` are the reference network's times;
    `scale` is the median change of an entry beside the reference, as a factor."""

    reference_us: tuple[float, float]
    scale: float
    entries: tuple[Movement, ...]

    @property
    def speed(self) -> float:
        """The reference's time now over that of the table's day."""
        return self.reference_us[1] / self.reference_us[0]

    @property
    def moved(self) -> list[Movement]:
        """The entries that moved, those that cost most first."""
        found = [entry for entry in self.entries if entry.moved]
        return sorted(found, key=lambda m: (-abs(m.change) * m.share, str(m.entry)))

    @property
    def moved_share(self) -> float:
        """How much the entries that moved change the networks' time, relative."""
        return sum(abs(entry.change) * entry.share for entry in self.moved)

    @property
    def holds(self) -> bool:
        """Whether the table's entries still hold, up to their scale."""
        return self.moved_share <= MOST_MOVED


def drift_of(table: Table, retiming: Retiming) -> Drift:
    """Compare a table's own measurements of its calibration networks with those of a retiming.

    Raises UserError where the two have no entry in common.
    """
    then, now = (_by_entry(visits) for visits in (table.built_calibration, retiming.visits))
    old_us, new_us = table.baseline_us, retiming.baseline_us
    ratios: dict[Operation, tuple[float, float]] = {}  # beside the reference, and its noise
    costs: dict[Operation, float] = {}
    for key, visits in now.items():
        # Of the same networks: an entry's neighbours, too, are then what they were.
        networks = {visit.network for visit in visits}
        before = [visit for visit in then.get(key, ()) if visit.network in networks]
        if not before:
            continue
        first, second = summarise(key, before, old_us), summarise(key, visits, new_us)
        noise = sum(e.half_interval_us / e.median_us for e in (first, second))
        ratios[key] = second.median_us / new_us / (first.median_us / old_us), noise
        costs[key] = first.median_us * sum(visit.entries[key].calls for visit in visits)
    if not ratios:
        raise UserError(f"{table.name} has nothing in common with what was timed again")
    scale = _median([(ratio, costs[key]) for key, (ratio, _) in ratios.items()])
    whole = sum(costs.values())
    entries = tuple(
        Movement(key, ratio / scale - 1, noise, costs[key] / whole)
        for key, (ratio, noise) in ratios.items()
    )
    return Drift((old_us, new_us), scale, entries)


def _by_entry(visits: Sequence[Visit]) -> dict[Operation, list[Visit]]:
    found: dict[Operation, list[Visit]] = defaultdict(list)
    for visit in visits:
        for key in visit.entries:
            found[key].append(visit)
    return found


def _median(weighted: list[tuple[float, float]]) -> float:
    """The median of values with weights."""
    half, passed = sum(weight for _, weight in weighted) / 2, 0.0
    for value, weight in sorted(weighted):
        passed += weight
        if passed >= half:
            return value
    raise ValueError("of nothing")
