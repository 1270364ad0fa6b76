"""Networks of the search space, and devices that are made up: an entry takes what its multiply-adds
say, so that what a table must say of it can be computed. Nothing is compiled."""

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any

from deploy.cpu.kernels import has_kernel
from deploy.measure.device import DeviceInfo, OneDevice
from deploy.measure.rounds import VisitProtocol
from deploy.tables.networks import Recipe, TimedNetwork
from hmseg.genotype import Genotype, parse_genotype
from hmseg.operators import Space
from lut.ops import Operation, expand

SIZE = (64, 64)
SPACE = Space(SIZE, 0.5)
SHALLOW = parse_genotype(
    "s1 e1k3 | s2 e1k3 skip skip skip | s3 e3k5 skip skip skip | s4a e1k3 e1k3 skip skip"
    " | s4b e1k3 skip skip skip | s5a e1k3 skip skip skip | s5b e1k3 | 0.5 0.6"
)
PROTOCOL = VisitProtocol(rounds=2, frames=3, warmup=1, attempts=2)
INFO = DeviceInfo(
    cpu="A CPU", architecture="x86_64", cores=2, pinning="one a core", frame="image to labels",
    emulated=False,
)  # fmt: skip
OVERHEAD_NS = 20_000  # of a whole frame, beyond its kernels


def entry_ns(entry: Operation) -> int:
    """Of one call."""
    return 2000 + entry.macs // 50


def frame_ns(genotype: Genotype, space: Space = SPACE) -> int:
    return OVERHEAD_NS + sum(map(entry_ns, space.keys(genotype)))


@dataclass(frozen=True)
class FakeArtifact:
    genotype: Genotype


class FakeFactory:
    """Stands in for `deploy.tables.networks.factory_of`; keeps what it was asked for."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.ahead: list[Genotype] = []
        self.built: list[Genotype] = []

    def __enter__(self) -> "FakeFactory":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def build_ahead(self, genotypes: Sequence[Genotype]) -> None:
        self.ahead += genotypes

    def build(self, genotype: Genotype) -> TimedNetwork:
        self.built.append(genotype)
        keys = self.recipe.space.keys(genotype)
        calls = tuple(key for key in keys for _ in expand(key, has_kernel))
        return TimedNetwork(genotype, FakeArtifact(genotype), tuple(keys), calls)


@dataclass
class FakeDevices(OneDevice):
    """One machine. `noise` are factors of an entry's time, taken in turn from round to round;
    `slower` is one of all times; `before_visit` is called with each network before it is opened."""

    space: Space = SPACE
    info: DeviceInfo = INFO
    noise: dict[Operation, Sequence[float]] = field(default_factory=dict)
    before_visit: Callable[[Genotype], None] = lambda _: None
    slower: float = 1

    def __post_init__(self) -> None:
        self.factors = {entry: cycle(factors) for entry, factors in self.noise.items()}

    @contextmanager
    def open(self, artifact: Any):
        self.before_visit(artifact.genotype)
        yield FakeSession(self, artifact.genotype)


class FakeSession:
    def __init__(self, devices: FakeDevices, genotype: Genotype) -> None:
        self.devices, self.genotype = devices, genotype

    def time_frames(self, frames: int) -> list[int]:
        whole = frame_ns(self.genotype, self.devices.space)
        return [round(self.devices.slower * whole)] * frames

    def time_kernels(self, frames: int) -> list[list[int]]:
        times = []
        for entry in self.devices.space.keys(self.genotype):
            factor = next(self.devices.factors[entry]) if entry in self.devices.factors else 1
            whole = round(self.devices.slower * factor * entry_ns(entry))
            kernels = len(expand(entry, has_kernel))
            rest = whole // kernels  # of each but the first
            times += [whole - rest * (kernels - 1), *[rest] * (kernels - 1)]
        return [times] * frames
