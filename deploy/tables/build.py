"""Building a latency table: covering networks, visited one by one; a killed build goes on."""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deploy.backends import backend_of
from deploy.measure.device import Device, DeviceInfo, Devices, Session
from deploy.measure.rounds import VisitProtocol
from deploy.object_cache import ObjectCache
from deploy.schedules import Fields
from deploy.tables.networks import Factory, Recipe, TimedNetwork, factory_of
from deploy.tables.provenance import provenance_now
from deploy.tables.schedules import schedules_of
from deploy.tables.visit import measure_visit
from deploy.target import Target
from hmseg.covering import STAGES, covering_networks, random_networks
from hmseg.genotype import MRMS_GENOTYPE, Genotype
from hmseg.operators import RESIZE_RULE, Space
from lut.errors import UserError
from lut.files import cache_folder
from lut.provenance import Provenance
from lut.record import Role, Visit
from lut.table import Identity, Table
from lut.table_file import Writer, open_table

CALIBRATION = 16  # random networks, measured whole
# On which each network is visited, all the others between them: loading gives it other places in
# memory every time, and a shared machine has slow phases of minutes.
OCCASIONS = 3
REVISITS = 1.0  # of the number of covering networks, at most, for noisy entries
VISITS_PER_NETWORK = 6
_SEED = 20  # of the networks that are measured: the same ones whenever a build goes on
_Item = tuple[Genotype, Role]


@dataclass(frozen=True)
class Progress:
    """After each visit."""

    done: int
    total: int
    entries: int  # in the table so far
    eta_s: float


@dataclass(frozen=True)
class Plan:
    """What to measure, and for whom."""

    space: Space
    target: Target
    threads: int
    stages: Sequence[str] = STAGES
    calibration: int = CALIBRATION
    occasions: int = OCCASIONS
    revisits: float = REVISITS
    protocol: VisitProtocol = field(default_factory=VisitProtocol)

    @property
    def identity(self) -> Identity:
        """What the table is for."""
        height, width = self.space.resolution
        return Identity(
            target=self.target.key,
            target_name=self.target.name,
            threads=self.threads,
            resolution=f"{height}x{width}",
            width=self.space.width,
            num_classes=self.space.num_classes,
            resize_rule=RESIZE_RULE,
        )

    def networks(self) -> list[_Item]:
        """Every visit to make, in order: the same ones each time."""
        rng = random.Random(_SEED)
        covering = covering_networks(self.space, rng, self.stages)
        calibration = random_networks(self.space, rng, self.calibration, self.stages)
        roles: list[_Item] = [(network, "entries") for network in covering]
        roles += [(network, "calibration") for network in calibration]
        visits = []
        for _ in range(self.occasions):
            rng.shuffle(roles)  # what is slow for a while is spread over both
            visits += roles
        return visits


def build_table(
    plan: Plan,
    devices: Devices,
    path: Path,
    on_progress: Callable[[Progress], None] = lambda _: None,
    cache: ObjectCache | None = None,
) -> Table:
    """Measure what the table at `path` does not hold yet; returns it complete.

    Each visit is on disk when it is reported; `cache` gives and takes machine code. Raises
    UserError for a table of something else, one that another process is building, a target without
    kernels, one that the devices are not, and a device that is not like the others.
    """
    target = plan.target
    architecture = backend_of(target).architecture(target)
    if architecture != devices.info.architecture:
        raise UserError(
            f"the target {target.name} is {architecture}, and what would measure it is "
            f"{devices.info.architecture}; name another --target, or the device: perhaps --device "
            "or --rpc-key is missing"
        )
    schedules = schedules_of(plan.space, target, plan.threads)
    provenance = provenance_of(devices.info, target, schedules, plan.protocol)
    networks = plan.networks()
    with (  # the table last: a mistake in the plan leaves no file
        factory_of(Recipe(plan.space, target, plan.threads, schedules, cache)) as factory,
        open_table(path, plan.identity, provenance) as writer,
    ):
        build = _Builder(plan, devices, writer, factory, on_progress)
        build.visit_all(visits_left(networks, writer.table))
        while noisy := build.noisy_networks():
            build.visit_all(noisy)
        return writer.table


def visit_networks(
    todo: Sequence[_Item], devices: Devices, factory: Factory, protocol: VisitProtocol,
    keep: Callable[[Visit, int, float], None], built: dict[Genotype, TimedNetwork],
) -> None:  # fmt: skip
    """Visit networks in their roles, beside the reference, on as many devices as there are.

    `keep` is called after each, one at a time, with how many are done and about how many seconds
    the others will take; `built` has the networks that were built before, and gets the others.
    """
    if not todo:
        return
    start, done = time.monotonic(), 0
    factory.build_ahead([MRMS_GENOTYPE, *(genotype for genotype, _ in todo)])

    def measure(device: Device, reference: Session, item: _Item) -> Visit:
        genotype, role = item
        network = built.get(genotype) or factory.build(genotype)
        built[genotype] = network
        with device.open(network.artifact) as session:
            return measure_visit(session, reference, network, role, protocol)

    def on_result(_item: _Item, visit: Visit) -> None:
        nonlocal done
        done += 1
        keep(visit, done, (time.monotonic() - start) / done * (len(todo) - done))

    reference = factory.build(MRMS_GENOTYPE)
    devices.spread(todo, measure, on_result, reference=reference.artifact)


def visits_left(networks: Sequence[_Item], table: Table) -> list[_Item]:
    """Those of `Plan.networks` that a table does not hold yet, in their order."""
    visited = Counter((v.network, v.role) for v in table.visits)
    todo = []
    for genotype, role in networks:
        if visited[str(genotype), role]:
            visited[str(genotype), role] -= 1
        else:
            todo.append((genotype, role))
    return todo


def default_path(plan: Plan) -> Path:
    """Where a table goes unless the user says: in the user's cache, by what it is for."""
    identity = plan.identity
    name = f"{plan.target.machine}-{identity.resolution}-width{identity.width:g}"
    precision = plan.target.precision
    last = f"{identity.threads}threads{precision.suffix}" if identity.threads else precision.name
    return cache_folder() / "lut" / f"{name}-{last}.jsonl"


def provenance_of(
    device: DeviceInfo, target: Target, schedules: dict[str, Fields], protocol: VisitProtocol
) -> Provenance:
    """What is measured now, on this device, with kernels of these schedules, which are those of
    `schedules_of` for the table's space."""
    told = f"{protocol}; a whole frame is {device.frame}"
    return provenance_now(device, target, schedules, told)


class _Builder:
    def __init__(
        self, plan: Plan, devices: Devices, writer: Writer, factory: Factory,
        on_progress: Callable[[Progress], None],
    ) -> None:  # fmt: skip
        self.plan, self.devices, self.writer, self.factory = plan, devices, writer, factory
        self.on_progress = on_progress
        self.built: dict[Genotype, TimedNetwork] = {}

    def visit_all(self, todo: Sequence[_Item]) -> None:
        """Visit networks, on as many devices as there are."""

        def keep(visit: Visit, done: int, left_s: float) -> None:
            self.writer.append(visit)
            entries = len(self.writer.table.entries)
            self.on_progress(Progress(done, len(todo), entries, left_s))

        protocol = self.plan.protocol
        visit_networks(todo, self.devices, self.factory, protocol, keep, self.built)

    def noisy_networks(self) -> list[_Item]:
        """What to visit again: the networks with the most noisy entries, within the limits."""
        visits = Counter(v.network for v in self.writer.table.visits if v.role == "entries")
        planned = [genotype for genotype, role in self.plan.networks() if role == "entries"]
        networks = {str(genotype): genotype for genotype in planned}
        again = sum(visits[name] for name in networks) - len(planned)
        left = max(0, int(self.plan.revisits * len(networks)) - again)
        noisy = [n for n in self._noisiest(networks) if visits[n] < VISITS_PER_NETWORK]
        return [(networks[name], "entries") for name in noisy[:left]]

    def _noisiest(self, networks: dict[str, Genotype]) -> Iterator[str]:
        """Names of networks until every noisy entry is in one, those with the most first."""
        noisy = {key for key, entry in self.writer.table.entries.items() if entry.noisy}
        contents = {name: set(self.plan.space.keys(g)) for name, g in networks.items()}
        while noisy and contents:
            name = max(contents, key=lambda n: len(contents[n] & noisy))
            found = contents.pop(name) & noisy
            if not found:
                return
            noisy -= found
            yield name
