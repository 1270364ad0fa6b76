"""A table made true today: its calibration networks timed again, and what that says of it."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from statistics import fmean, median
from typing import Any

from deploy.backends import backend_of
from deploy.measure.device import Devices
from deploy.measure.rounds import VisitProtocol
from deploy.object_cache import ObjectCache
from deploy.tables.build import visit_networks
from deploy.tables.check import BAR_MEAN, require_same, space_of
from deploy.tables.networks import Recipe, TimedNetwork, factory_of
from deploy.tables.schedules import schedules_of
from deploy.target import Target
from hmseg.genotype import Genotype, parse_genotype
from lut.drift import MOVED, Drift, drift_of
from lut.errors import UserError, WorkError
from lut.estimate import MIN_CALIBRATION, Calibration, LatencyCost
from lut.record import Role, Visit
from lut.retiming import Retiming
from lut.table import Measure, Table

# On each, every network once: loading gives it other places in memory. Not more, for all of it is
# to take three minutes.
OCCASIONS = 2
NAMED = 3  # entries that a message names
# Kernels of another version may be as fast: that is what is measured. A tuning record is of one
# entry, which the sample may lack.
_SAME = ("cpu", "schedules")


@dataclass(frozen=True)
class Calibrated:
    """A table with its retiming, and what changed. `error_before` is the mean absolute error of the
    estimates so far over the networks timed now, both beside the reference network; `within_before`
    how many of the networks kept to their upper bounds."""

    table: Table
    retiming: Retiming
    drift: Drift
    before: Calibration
    after: Calibration
    error_before: float
    within_before: int

    def to_json(self) -> dict[str, Any]:
        """For --json."""
        drift = self.drift
        return {
            "reference_us": drift.reference_us,
            "speed": drift.speed,
            "scale": drift.scale,
            "entries_timed": len(drift.entries),
            "entries": len(self.table.entries),
            "moved": [asdict(m) | {"entry": str(m.entry)} for m in drift.moved],
            "moved_share": drift.moved_share,
            "networks": self.after.networks,
            "before": asdict(self.before),
            "after": asdict(self.after),
            "error_before": self.error_before,
            "within_before": self.within_before,
        }


def calibrate_table(
    table: Table,
    target: Target,
    devices: Devices,
    *,
    protocol: VisitProtocol | None = None,
    occasions: int = OCCASIONS,
    on_progress: Callable[[int, int, float], None] = lambda *_: None,
    cache: ObjectCache | None = None,
) -> Calibrated:
    """Time a table's calibration networks here and now, kernel by kernel and whole.

    `on_progress` is called after each visit: done, of how many, and seconds left. Nothing is
    written. Raises UserError for a table that is not this machine's or lacks what it needs, and
    WorkError where entries moved otherwise than the others, or where the networks are no longer a
    sum of their entries: no scale mends that.
    """
    backend = backend_of(target)
    protocol = protocol or backend.protocol
    built = [run for run, _ in table.runs]
    provenance = require_same(table, target, devices, _SAME, built, protocol)
    names = dict.fromkeys(visit.network for visit in table.built_calibration)
    if len(names) < MIN_CALIBRATION:
        raise UserError(
            f"{table.name} has {len(names)} calibration networks of at least {MIN_CALIBRATION}; "
            "measure the rest", mend=table.measure,
        )  # fmt: skip
    before = LatencyCost(table)
    was = before.calibration  # a missing entry is named before anything is compiled
    threads, space = table.identity.threads, space_of(table)
    recipe = Recipe(space, target, threads, schedules_of(space, target, threads), cache)
    networks: list[tuple[Genotype, Role]] = [(parse_genotype(n), "calibration") for n in names]
    todo, visits = networks * occasions, list[Visit]()
    compiled: dict[Genotype, TimedNetwork] = {}

    def keep(visit: Visit, done: int, left_s: float) -> None:
        visits.append(visit)
        on_progress(done, len(todo), left_s)

    with factory_of(recipe) as factory:
        # All before the first is timed, so that each meets a machine that has not just compiled.
        factory.build_ahead([genotype for genotype, _ in networks])
        for genotype, _ in networks:
            compiled[genotype] = factory.build(genotype)
        visit_networks(todo, devices, factory, protocol, keep, compiled)
    retiming = Retiming(provenance, devices.info.host, tuple(visits))
    drift = drift_of(table, retiming)
    _require_scale(table, drift)
    retimed = replace(table, retimings=(*table.retimings, retiming))
    after = LatencyCost(retimed)
    if after.calibration.error > BAR_MEAN:
        raise WorkError(
            f"{table.name}: the calibration networks are {after.calibration.error:.1%} (standard "
            f"deviation) off the sum of their entries, bar {BAR_MEAN:.0%}; calibrate again while "
            "nothing else runs, and if that does not help build the table anew", mend=_anew(table),
        )  # fmt: skip
    error, within = _as_it_was(before, table.present_us, retiming)
    return Calibrated(retimed, retiming, drift, was, after.calibration, error, within)


def _require_scale(table: Table, drift: Drift) -> None:
    """Raise WorkError, naming them, where entries moved by themselves."""
    if drift.holds:
        return
    moved = drift.moved
    named = ", ".join(f"'{m.entry}' ({m.change:+.0%})" for m in moved[:NAMED])
    more = f" and {len(moved) - NAMED} more" if len(moved) > NAMED else ""
    raise WorkError(
        f"{table.name}: entries moved, not only the scale: {named}{more} of {len(drift.entries)} "
        f"changed by over {MOVED:.0%} beside the others, which is {drift.moved_share:.1%} of the "
        "networks' time; build the table anew in another file", mend=_anew(table),
    )  # fmt: skip


def _anew(table: Table) -> Measure:
    return Measure(table.identity, "TABLE.jsonl")


def _as_it_was(cost: LatencyCost, speed_us: float, retiming: Retiming) -> tuple[float, int]:
    """The estimates so far beside the networks' times now, both where the reference takes
    `speed_us`: the mean absolute error, and how many networks kept to their bounds."""
    times: dict[str, list[Visit]] = {}
    for visit in retiming.visits:
        times.setdefault(visit.network, []).append(visit)
    errors, within = [], 0
    for visits in times.values():
        estimate = cost.network(cost.sum_of(visits[0]))
        measured = fmean(median(visit.frame_us(speed_us)) for visit in visits)
        errors.append(abs(estimate.value / measured - 1))
        within += measured <= estimate.upper
    return fmean(errors), within
