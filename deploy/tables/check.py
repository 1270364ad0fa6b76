"""Checking a table: its estimates beside whole networks that it has not seen."""

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, median
from typing import Any

from deploy.artifact import Artifact
from deploy.backends import backend_of
from deploy.build import build_artifact
from deploy.measure.device import Device, Devices, Session
from deploy.measure.rounds import VisitProtocol, steady_rounds, whole_block
from deploy.object_cache import ObjectCache
from deploy.precision import INT8
from deploy.resolution import parse_resolution
from deploy.tables.build import provenance_of
from deploy.tables.networks import Recipe, export_genotype, shared_kernels
from deploy.tables.schedules import schedules_of
from deploy.target import Target
from hmseg.covering import random_networks
from hmseg.genotype import MRMS_GENOTYPE, Genotype, random_genotype
from hmseg.operators import Space
from lut.errors import UserError
from lut.estimate import LatencyCost
from lut.provenance import Provenance
from lut.table import Retime, Table

BAR_MEAN, BAR_WORST, BAR_TAU = 0.05, 0.10, 0.95
OCCASIONS = 5  # of measuring each network: loading gives it other places in memory every time
_SEED = 30
_DRAWS = 100  # for each network that is asked for
SAME = ("cpu", "kernels_version", "schedules")  # of the provenance; the rest is noise at most


@dataclass(frozen=True)
class Row:
    """One network, in microseconds at the table's present speed."""

    network: str
    estimate_us: float
    upper_us: float
    occasions_us: tuple[float, ...]

    @property
    def measured_us(self) -> float:
        """The median over the occasions: a disturbed one is an outlier."""
        return median(self.occasions_us)

    @property
    def error(self) -> float:
        """Relative; above zero the estimate is too high."""
        return self.estimate_us / self.measured_us - 1


@dataclass(frozen=True)
class CheckResult:
    """Estimates beside measurements."""

    rows: tuple[Row, ...]

    @property
    def mean_error(self) -> float:
        """Mean absolute percentage error, as a fraction."""
        return fmean(abs(row.error) for row in self.rows)

    @property
    def worst_error(self) -> float:
        """The largest absolute error, as a fraction."""
        return max(abs(row.error) for row in self.rows)

    @property
    def tau(self) -> float:
        """Kendall's rank correlation."""
        return kendall_tau(
            [row.estimate_us for row in self.rows], [row.measured_us for row in self.rows]
        )

    @property
    def within_upper(self) -> int:
        """How many networks kept to the estimate's upper bound."""
        return sum(row.measured_us <= row.upper_us for row in self.rows)

    @property
    def passed(self) -> bool:
        """Whether all three bars are met."""
        small = self.mean_error <= BAR_MEAN and self.worst_error <= BAR_WORST
        return small and self.tau >= BAR_TAU

    def to_json(self) -> dict[str, Any]:
        """For --json."""
        return {
            "passed": self.passed,
            "networks": len(self.rows),
            "mean_error": self.mean_error,
            "worst_error": self.worst_error,
            "kendall_tau": self.tau,
            "within_upper": self.within_upper,
            "rows": [asdict(row) | {"measured_us": row.measured_us} for row in self.rows],
        }


def check_networks(
    table: Table,
    target: Target,
    devices: Devices,
    networks: Sequence[Genotype],
    *,
    protocol: VisitProtocol | None = None,
    on_progress: Callable[[str], None] = lambda _: None,
    on_row: Callable[[Row], None] = lambda _: None,
    cache: ObjectCache | None = None,
) -> CheckResult:
    """Compile networks, no two alike, as `build_artifact` does (in 8 bits as `Recipe` does), and
    time them whole.

    Each is timed on `OCCASIONS` occasions, all the others between them. Their times are scaled to
    the table's present speed by the reference network beside them, as the table's own are. Raises
    what `require_measurable` raises, and UserError where the table lacks an entry and for a device
    unlike the others.
    """
    protocol = protocol or backend_of(target).protocol
    require_measurable(table, target, devices, protocol)
    identity, space = table.identity, space_of(table)
    space.require_table(table)
    latency = LatencyCost(table)
    estimates = {  # before anything is compiled: an entry may be missing
        genotype: latency.network(sum(map(latency.entry, space.keys(genotype))))
        for genotype in networks
    }
    measured: dict[Genotype, list[float]] = {genotype: [] for genotype in networks}
    rows: dict[Genotype, Row] = {}
    artifacts: dict[Genotype, Artifact] = {}

    def measure(device: Device, reference: Session, genotype: Genotype) -> float:
        with device.open(artifacts[genotype]) as session:
            return _measure(session, reference, protocol, table.present_us)

    def keep(genotype: Genotype, measured_us: float) -> None:
        measured[genotype].append(measured_us)
        if len(measured[genotype]) == OCCASIONS:
            estimate, occasions = estimates[genotype], tuple(measured[genotype])
            rows[genotype] = Row(str(genotype), estimate.value, estimate.upper, occasions)
            on_row(rows[genotype])
        done = sum(map(len, measured.values()))
        on_progress(f"timed {done} of {OCCASIONS * len(networks)}")

    cache = shared_kernels(target, cache)
    reference = _compile(MRMS_GENOTYPE, space, target, identity.threads, cache)
    for genotype in networks:  # all before the first is timed: compiling keeps every core busy
        artifacts[genotype] = _compile(genotype, space, target, identity.threads, cache)
        on_progress(f"compiled {len(artifacts)} of {len(networks)}")
    devices.spread([*networks] * OCCASIONS, measure, keep, reference=reference)
    return CheckResult(tuple(rows[genotype] for genotype in networks))


def require_measurable(
    table: Table, target: Target, devices: Devices, protocol: VisitProtocol | None = None
) -> None:
    """Raise UserError where the table is for another target, or what vouches for it, its last
    retiming or its measurements, is of another CPU or of other kernels than are compiled today."""
    vouching = [table.newest] if table.retimings else [run for run, _ in table.runs]
    require_same(table, target, devices, SAME, vouching, protocol)


def require_same(
    table: Table, target: Target, devices: Devices, same: Sequence[str],
    vouching: Sequence[Provenance | None], protocol: VisitProtocol | None = None,
) -> Provenance:  # fmt: skip
    """Raise UserError for a table of another target, and where what vouches for it is not what
    would be measured now, in the fields `same` of a provenance; returns that of now."""
    identity = table.identity
    if target.key != identity.target:
        raise UserError(
            f"{table.name} is for the target {identity.target}, this is {target.key}; check it on "
            "the device it was measured on"
        )
    schedules = schedules_of(space_of(table), target, identity.threads)
    today = provenance_of(devices.info, target, schedules, protocol or backend_of(target).protocol)
    for run in vouching:
        if run and (wrong := [name for name in today.differences(run) if name in same]):
            values = "; ".join(f"{n} {getattr(run, n)!r}, now {getattr(today, n)!r}" for n in wrong)
            kernels = wrong == ["kernels_version"]
            raise UserError(
                f"{table.name} cannot be checked here and now, it says: {values}; "
                + ("calibrate it" if kernels else "check it on its device, or build it anew in "
                   "another file"),
                mend=Retime(table.name) if kernels else None,
            )  # fmt: skip
    return today


def unseen_networks(table: Table, count: int, stages: Sequence[str] = ()) -> list[Genotype]:
    """Random networks of which the table has measured none; with `stages` such as differ there
    alone, as those of a table of these stages do. Raises UserError where there are not so many."""
    rng, seen = random.Random(_SEED), {visit.network for visit in table.visits}
    found: list[Genotype] = []
    for _ in range(_DRAWS * count):
        if stages:
            (genotype,) = random_networks(space_of(table), rng, 1, stages)
        else:
            genotype = random_genotype(rng)
        if str(genotype) not in seen:
            seen.add(str(genotype))
            found.append(genotype)
            if len(found) == count:
                return found
    raise UserError(
        f"{table.name}: there are not {count} networks of these stages that it has not measured; "
        "ask for fewer --networks"
    )


def kendall_tau(first: Sequence[float], second: Sequence[float]) -> float:
    """(concordant - discordant pairs) / pairs; nan for fewer than two."""
    pairs = [(i, j) for i in range(len(first)) for j in range(i)]
    if not pairs:
        return float("nan")
    signs = ((first[i] - first[j]) * (second[i] - second[j]) for i, j in pairs)
    return sum((sign > 0) - (sign < 0) for sign in signs) / len(pairs)


def space_of(table: Table) -> Space:
    """The networks that a table is for."""
    identity = table.identity
    return Space(parse_resolution(identity.resolution), identity.width, identity.num_classes)


def _compile(
    genotype: Genotype, space: Space, target: Target, threads: int, cache: ObjectCache | None
) -> Artifact:
    """In 8 bits unchecked, as the table's own networks: with weights and scales that are made up
    scores lie near ties everywhere, and the gate would ask for what no kernel can give."""
    if target.precision is INT8:
        measured = schedules_of(space, target, threads)
        return Recipe(space, target, threads, measured, cache).compile(genotype).artifact
    graph = export_genotype(genotype, space)
    return build_artifact(graph, target, threads=threads, cache=cache)[0]


def _measure(
    session: Session, reference: Session, protocol: VisitProtocol, present_us: float
) -> float:
    """Median over the rounds of the whole network's time, in microseconds at present speed."""
    rounds = steady_rounds(lambda: whole_block(session, protocol), reference, protocol)
    ratios = [median(r.measured) / median(r.reference) for r in rounds]
    return median(ratios) * present_us
