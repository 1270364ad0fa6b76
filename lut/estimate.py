"""From entries to a network: their sum and what a whole network takes beyond it, with an error.

Every cost of the search has one interface, `Cost`: measured latency, MACs, parameters.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import sqrt
from statistics import fmean, median
from typing import Protocol

from lut import costs
from lut.errors import UserError
from lut.key import OpKey
from lut.record import Visit
from lut.table import Table

MIN_CALIBRATION = 4  # networks, for two coefficients and an error
# Student's t for a two-sided 95% interval, by degrees of freedom.
_T95 = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13,
        2.12, 2.11, 2.10, 2.09, 2.09)  # fmt: skip


@dataclass(frozen=True)
class Estimate:
    """A network's cost. With 95% confidence it is at most `upper`; an exact one has error 0."""

    value: float
    error: float  # half the 95% interval of one network
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

    def entry(self, key: OpKey) -> float:
        """One call of an entry; raises UserError where it is not known."""

    def network(self, total: float) -> Estimate:
        """A network whose entries sum up to `total`."""


@dataclass(frozen=True)
class MacsCost:
    """Multiply-accumulates by the paper's rule."""

    unit: str = "MACs"

    def entry(self, key: OpKey) -> float:
        """One call."""
        return costs.macs(key)

    def network(self, total: float) -> Estimate:
        """Exact."""
        return Estimate(total, 0.0, self.unit)


@dataclass(frozen=True)
class ParametersCost:
    """Parameters by the paper's rule."""

    unit: str = "parameters"

    def entry(self, key: OpKey) -> float:
        """One layer."""
        return costs.parameters(key)

    def network(self, total: float) -> Estimate:
        """Exact."""
        return Estimate(total, 0.0, self.unit)


@dataclass(frozen=True)
class Calibration:
    """whole = overhead_us + factor * sum of entries, by least squares over K networks.

    `error` is the standard deviation of the relative residuals.
    """

    overhead_us: float
    factor: float
    error: float
    networks: int

    def whole_us(self, total_us: float) -> float:
        """Of a network whose entries sum up to `total_us`."""
        return self.overhead_us + self.factor * total_us


class LatencyCost:
    """Measured latency in microseconds, at the table's baseline speed."""

    unit = "us"

    def __init__(self, table: Table) -> None:
        self.table = table

    def entry(self, key: OpKey) -> float:
        """One call of a measured entry; a miss names the command that measures it."""
        return self.table.entry(key).median_us

    @cached_property
    def calibration(self) -> Calibration:
        """What the table's calibration networks say; raises UserError for too few."""
        visits = self.table.calibration
        if len(visits) < MIN_CALIBRATION:
            raise UserError(
                f"{self.table.name} has {len(visits)} calibration networks of at least "
                f"{MIN_CALIBRATION}; run {self.table.identity.command(self.table.name)}"
            )
        sums = [self.sum_of(visit) for visit in visits]
        wholes = [median(visit.frame_us(self.table.baseline_us)) for visit in visits]
        return calibrate(sums, wholes)

    def sum_of(self, visit: Visit) -> float:
        """The table's entries over a visit's network."""
        return sum(samples.calls * self.entry(key) for key, samples in visit.entries.items())

    def network(self, total: float) -> Estimate:
        """Overhead and factor applied; the error is that of one more network."""
        fit = self.calibration
        value = fit.whole_us(total)
        spread = _t95(fit.networks - 2) * fit.error * sqrt(1 + 1 / fit.networks)
        return Estimate(value, value * spread, self.unit)


def calibrate(sums_us: Sequence[float], wholes_us: Sequence[float]) -> Calibration:
    """Fit the calibration; the sums must not all be equal."""
    mean_sum, mean_whole = fmean(sums_us), fmean(wholes_us)
    spread = sum((s - mean_sum) ** 2 for s in sums_us)
    if not spread:
        raise UserError("all calibration networks have one sum of entries: nothing can be fitted")
    pairs = list(zip(sums_us, wholes_us, strict=True))
    factor = sum((s - mean_sum) * (w - mean_whole) for s, w in pairs) / spread
    overhead = mean_whole - factor * mean_sum
    residuals = [w / (overhead + factor * s) - 1 for s, w in pairs]
    error = sqrt(sum(r * r for r in residuals) / (len(pairs) - 2))
    return Calibration(overhead, factor, error, len(pairs))


def _t95(freedom: int) -> float:
    return _T95[freedom - 1] if freedom <= len(_T95) else 1.96 + 2.4 / freedom
