"""From entries to a network: their sum and what a whole network takes beyond it, with an error.

Every cost of the search has one interface, `Cost`: measured latency, MACs, parameters.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import hypot, sqrt
from statistics import fmean, median
from typing import Protocol

from lut.errors import UserError
from lut.ops import Operation
from lut.record import Visit
from lut.student import t95
from lut.table import Table

MIN_CALIBRATION = 4  # networks, for two coefficients and an error


@dataclass(frozen=True)
class Estimate:
    """A network's cost; an exact one has error 0.

    The interval from value - error to `upper` is two-sided: with 95% confidence the cost is in it,
    and so with 97.5% it is at most `upper`.
    """

    value: float
    error: float  # half the two-sided 95% interval of one more network
    unit: str

    @property
    def upper(self) -> float:
        """The upper bound."""
        return self.value + self.error


class Cost(Protocol):
    """What the search weighs: the cost of each entry, and of a network from the sum of its own."""

    @property
    def unit(self) -> str:
        """Of entries and estimates."""

    def entry(self, key: Operation) -> float:
        """One call of an entry; raises UserError where it is not known."""

    def network(self, total: float) -> Estimate:
        """A network whose entries sum up to `total`."""


@dataclass(frozen=True)
class MacsCost:
    """Multiply-accumulates by the paper's rule."""

    unit: str = "MACs"

    def entry(self, key: Operation) -> float:
        """One call."""
        return key.macs

    def network(self, total: float) -> Estimate:
        """Exact."""
        return Estimate(total, 0.0, self.unit)


@dataclass(frozen=True)
class ParametersCost:
    """Parameters by the paper's rule."""

    unit: str = "parameters"

    def entry(self, key: Operation) -> float:
        """One layer."""
        return key.parameters

    def network(self, total: float) -> Estimate:
        """Exact."""
        return Estimate(total, 0.0, self.unit)


@dataclass(frozen=True)
class Calibration:
    """whole = overhead_us + factor * sum of entries, by least squares over K networks.

    `error` is the standard deviation of the relative residuals, `residual_us` that of the absolute
    ones; the sums have the mean `mean_us` and the squared deviations `squares_us2` from it.
    """

    overhead_us: float
    factor: float
    error: float
    networks: int
    residual_us: float
    mean_us: float
    squares_us2: float

    def whole_us(self, total_us: float) -> float:
        """Of a network whose entries sum up to `total_us`."""
        return self.overhead_us + self.factor * total_us

    def interval_us(self, total_us: float) -> float:
        """Half the two-sided 95% interval of one more network whose entries sum up to `total_us`.

        A network's own residual grows with it; the line's error grows with the distance from the
        networks that it was fitted to.
        """
        own = self.error * self.whole_us(total_us)
        leverage = 1 / self.networks + (total_us - self.mean_us) ** 2 / self.squares_us2
        return t95(self.networks - 2) * hypot(own, self.residual_us * sqrt(leverage))


class LatencyCost:
    """Measured latency in microseconds: of entries at the table's baseline speed, of networks at
    that of its last retiming (`Table.present_us`).

    `further` networks, as (sum of entries, whole) in microseconds of these two speeds, calibrate
    beside the table's own.
    """

    unit = "us"

    def __init__(self, table: Table, further: Sequence[tuple[float, float]] = ()) -> None:
        self.table, self.further = table, tuple(further)

    def entry(self, key: Operation) -> float:
        """One call of a measured entry; raises UserError for a miss."""
        return self.table.entry(key).median_us

    @cached_property
    def calibration(self) -> Calibration:
        """What the table's calibration networks say; raises UserError for too few."""
        networks: dict[str, list[Visit]] = {}
        for visit in self.table.calibration:
            networks.setdefault(visit.network, []).append(visit)
        if len(networks) < MIN_CALIBRATION:
            raise UserError(
                f"{self.table.name} has {len(networks)} calibration networks of at least "
                f"{MIN_CALIBRATION}; measure the rest", mend=self.table.measure,
            )  # fmt: skip
        present = self.table.present_us
        sums = [self.sum_of(visits[0]) for visits in networks.values()]
        wholes = [
            fmean(median(visit.frame_us(present)) for visit in visits)
            for visits in networks.values()
        ]
        more_sums, more_wholes = zip(*self.further, strict=True) if self.further else ((), ())
        return calibrate([*sums, *more_sums], [*wholes, *more_wholes])

    def sum_of(self, visit: Visit) -> float:
        """The table's entries over a visit's network."""
        return sum(samples.calls * self.entry(key) for key, samples in visit.entries.items())

    def network(self, total: float) -> Estimate:
        """Overhead and factor applied; the error is that of one more network."""
        fit = self.calibration
        return Estimate(fit.whole_us(total), fit.interval_us(total), self.unit)


def calibrate(sums_us: Sequence[float], wholes_us: Sequence[float]) -> Calibration:
    """Fit the calibration; raises UserError where all sums are equal."""
    mean_sum, mean_whole = fmean(sums_us), fmean(wholes_us)
    spread = sum((s - mean_sum) ** 2 for s in sums_us)
    if not spread:
        raise UserError("all calibration networks have one sum of entries: nothing can be fitted")
    pairs = list(zip(sums_us, wholes_us, strict=True))
    factor = sum((s - mean_sum) * (w - mean_whole) for s, w in pairs) / spread
    overhead = mean_whole - factor * mean_sum
    fitted = [overhead + factor * s for s in sums_us]
    freedom = len(pairs) - 2
    relative = sqrt(sum((w / f - 1) ** 2 for w, f in zip(wholes_us, fitted, strict=True)) / freedom)
    residual = sqrt(sum((w - f) ** 2 for w, f in zip(wholes_us, fitted, strict=True)) / freedom)
    return Calibration(overhead, factor, relative, len(pairs), residual, mean_sum, spread)
