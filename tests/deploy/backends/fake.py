"""A third kind of machine, which no file of ours knows of: it interprets ONNX graphs, and its clock
says of each operation of a graph what the schedule says that is chosen for it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import pytest

from deploy import artifact_file, backends
from deploy.artifact import Artifact, KernelInfo
from deploy.backends.base import Built, CannotRunError, Job
from deploy.gpu.kernels import GpuKernels
from deploy.graph.importer import import_graph
from deploy.graph.place import find_operations
from deploy.graph.reference import OnnxSession, Reference
from deploy.graph.source import Source
from deploy.graph.view import Graph
from deploy.measure.device import DeviceInfo, OneDevice
from deploy.measure.peer import Peer
from deploy.measure.rounds import VisitProtocol
from deploy.metadata import Metadata
from deploy.runtime import Network
from deploy.schedules import Fields, with_fields
from deploy.target import Target
from deploy.trials.bench import ROUNDS, Candidate, Measurement, operations_of
from lut.errors import UserError
from lut.ops import Operation

KIND = "paper"
TARGET = Target("paper", {"kind": KIND, "sheets": 3}, "abacus", ())
MACHINE = {"machine": "A4", "architecture": "abacus", "emulated": False}
RULE_NS = 1000  # of a kernel, by the rule's schedule


@dataclass(frozen=True)
class Schedule:
    """A kernel with `size` takes 1000 ns times 8 / size."""

    size: int


class FakeKernels(GpuKernels):
    """The operations of GPUs, written down; schedules of their own."""

    def rule(self, _op: Operation) -> Schedule:
        return Schedule(8)

    def schedule(self, op: Operation) -> Schedule:
        values = self.measured.get(str(op))
        return self.rule(op) if values is None else with_fields(self.rule(op), values)

    def alternatives(self, _op: Operation, best: Schedule) -> Iterator[Schedule]:
        yield from (Schedule(best.size // 2), Schedule(best.size * 2))


@dataclass(frozen=True)
class FakeCode:
    """The graph as it came, and how long each call of a frame takes."""

    compressed: ClassVar[bool] = True
    MEMBER: ClassVar[str] = "paper.onnx"

    graph: bytes
    times_ns: tuple[int, ...] = ()

    def members(self) -> dict[str, bytes]:
        return {self.MEMBER: self.graph, "paper.times": str(list(self.times_ns)).encode()}

    @staticmethod
    def is_member(name: str) -> bool:
        return name.startswith("paper.")

    @staticmethod
    def from_members(members: Mapping[str, bytes]) -> "FakeCode":
        times = tuple(int(n) for n in members["paper.times"].decode().strip("[]").split(","))
        return FakeCode(members[FakeCode.MEMBER], times)

    def check_ends(self, metadata: Metadata) -> None:
        pass


@dataclass
class Loaded:
    """As `deploy.loaders.LoadedCode`; `error` is added to every score."""

    code: FakeCode
    error: float = 0.0

    def __post_init__(self) -> None:
        self.reference = Reference(onnx.load_from_string(self.code.graph))

    def run(self, entry: str, given: np.ndarray) -> np.ndarray:
        labels, logits = self.reference(given)
        return labels if entry == "main" else logits + np.float32(self.error)


class FakeSession:
    includes = "the sharpening of the pencil"
    machine = MACHINE

    def __init__(self, artifact: Artifact) -> None:
        assert isinstance(artifact.code, FakeCode)
        self.network, self.given = Network(artifact, Loaded(artifact.code)), artifact.golden_input
        self.times_ns = list(artifact.code.times_ns)

    def block(self, protocol: Any) -> list[int]:
        return [sum(self.times_ns)] * protocol.repeat

    def time_frames(self, frames: int) -> list[int]:
        return [sum(self.times_ns)] * frames

    def time_kernels(self, frames: int) -> list[list[int]]:
        return [self.times_ns] * frames

    def time_parts(self, frames: int) -> dict[str, list[int]]:
        return {"thinking": [2_000_000] * frames, "writing": [1_000_000] * frames}

    def ceilings(self, threads: int) -> None:
        return None


class FakeDevice(OneDevice):
    info = DeviceInfo("A4", "abacus", 1, "one hand", "from image to labels", emulated=False)

    @contextmanager
    def open(self, artifact: Artifact) -> Iterator[FakeSession]:
        yield FakeSession(artifact)


class FakeTuningBench:
    """All candidates at once, as their schedules say."""

    nests: Mapping[str, Any] = {}
    at_once, per_kernel = 4, 2

    def __init__(self, kernels: FakeKernels, rule: Artifact) -> None:
        self.kernels = kernels
        texts = {info.name: info.spec for info in rule.kernels}
        self.times_ns = {texts[name]: RULE_NS for name in rule.calls}
        self.operations = operations_of(rule, self.times_ns)

    def measure(
        self, batch: Sequence[Candidate], keep: Callable[[Candidate, Measurement], None], end: float
    ) -> None:
        for candidate in batch:
            taken = RULE_NS * 8 // candidate.schedule.size
            keep(candidate, Measurement("A4", (RULE_NS,) * ROUNDS, (taken,) * ROUNDS))


@dataclass
class FakeBackend:
    """As `deploy.backends.base.Backend`. `broken` are names of nodes behind which all is wrong;
    `absent` says that the machine is not here."""

    broken: tuple[str, ...] = ()
    absent: bool = False
    steps: list[str] = field(default_factory=list)

    kernels_version = 41
    protocol = VisitProtocol(rounds=2, frames=3, warmup=1, attempts=2)
    trials = 6
    compiles_ahead = shares_kernels = measures_memory = tunes_nests = False

    def record_threads(self, threads: int) -> int:
        return 0

    def low_precision_peers(
        self, artifact: Artifact, source: Source, given: np.ndarray, threads: int
    ) -> Mapping[str, Callable[[], Peer]]:
        return {}

    def tunes(self, target: Target) -> bool:
        return True

    def has(self, operation: Operation) -> bool:
        return FakeKernels().has(operation)

    def kernels(
        self, target: Target, threads: int, measured: Mapping[str, Fields], *, exact: bool = False
    ) -> FakeKernels | None:
        return FakeKernels(measured)

    def compile(self, job: Job, draft: Artifact, on_step: Callable[[str], None]) -> Built:
        on_step("writing it down")
        kernels = job.kernels
        assert isinstance(kernels, FakeKernels)
        graph = Graph(import_graph(job.graph)["main"])
        found = find_operations(graph, kernels)
        calls = [found[var].operation for var in graph.vars if var in found]
        names = {operation: f"k{number}" for number, operation in enumerate(dict.fromkeys(calls))}
        infos = tuple(
            KernelInfo(name, "paper", str(op), op.macs, 8, tuned=str(op) in kernels.measured)
            for op, name in names.items()
        )
        times = tuple(RULE_NS * 8 // kernels.schedule(op).size for op in calls)
        artifact = replace(
            draft, code=FakeCode(job.graph.SerializeToString(), times), kernels=infos,
            calls=tuple(names[op] for op in calls), versions=draft.versions | self.versions(),
        )  # fmt: skip
        return Built(artifact, tuple(map(str, calls)))

    def package(self, job: Job, artifact: Artifact, folder: Path) -> list[Path]:
        raise UserError("--format c: paper has no C library")

    def check_package(self, target: Target, folder: Path) -> None:
        raise UserError("--format c: paper has no C library")

    def run_prefix(self, job: Job, given: np.ndarray, remote: Any) -> np.ndarray:
        output = OnnxSession(job.graph).run(given)[0]
        return output + any(node.name in self.broken for node in job.graph.graph.node)

    def try_out(
        self, built: Built, work: Callable[[Network, bool], Any], remote: Any,
        on_step: Callable[[str], None],
    ) -> tuple[Any, dict[str, Any]]:  # fmt: skip
        if self.absent:
            raise CannotRunError("there is no paper left")
        on_step("parity gate on paper")
        assert isinstance(built.artifact.code, FakeCode)
        loaded = Loaded(built.artifact.code, error=len(self.broken))
        return work(Network(built.artifact, loaded), False), MACHINE

    def timed(
        self, built: Built, entries: Sequence[tuple[Operation, int]]
    ) -> tuple[Artifact, tuple[Operation, ...]]:
        return built.artifact, tuple(entry for entry, calls in entries for _ in range(calls))

    def measured_target(self, target: Target, text: str) -> Target:
        return target

    def devices(self, threads: int, remote: Any) -> FakeDevice:
        return FakeDevice()

    def architecture(self, target: Target) -> str:
        return target.architecture

    def versions(self) -> dict[str, str]:
        return {"pencil": "2B"}

    def peers(
        self, artifact: Artifact, source: Source, given: np.ndarray, threads: int
    ) -> Mapping[str, Callable[[], Peer]]:
        session = OnnxSession(source.graph)
        return {"a calculator": lambda: Peer(lambda: session.run(given)[0], "of 1974")}

    def optional_peers(
        self, artifact: Artifact, source: Source, given: np.ndarray, threads: int
    ) -> dict[str, Callable[[], Peer]]:
        return {}

    def tuning_bench(
        self, job: Job, rule: Artifact, threads: int, remote: Any, *, emulated: bool
    ) -> FakeTuningBench:
        assert isinstance(job.kernels, FakeKernels)
        return FakeTuningBench(job.kernels, rule)

    def check_place(self, threads: int | None, remote: Any) -> None:
        if remote is not None:
            raise UserError("paper is not sent by RPC")

    def where(self, target: Target) -> str:
        return "at a desk: {}"


def register(patch: pytest.MonkeyPatch, backend: FakeBackend) -> None:
    """In the registries: of backends by their kind, of targets by their words, of the kinds of code
    that an artifact may hold. No other file is touched."""
    patch.setitem(backends._BACKENDS, KIND, backend)
    patch.setattr(artifact_file, "_CODES", (*artifact_file._CODES, lambda: FakeCode))
    patch.setattr("deploy.targets.check_target", lambda _: None)
    patch.setattr("deploy.targets.resolve_target", lambda *_: TARGET)
