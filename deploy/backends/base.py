"""What a backend is: its operations, its compiler, its machines and their clocks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

from numpy.typing import NDArray

from deploy.artifact import Artifact
from deploy.devices.network import Remote
from deploy.graph import place
from deploy.graph.job import Job as Job  # for who asks a backend to compile
from deploy.measure.device import Devices
from deploy.measure.peer import Peer
from deploy.measure.rounds import VisitProtocol
from deploy.runtime import Network
from deploy.schedules import Fields
from deploy.target import Target
from deploy.trials.bench import TunedKernels, TuningBench
from lut.errors import UserError
from lut.ops import Operation

if TYPE_CHECKING:
    from deploy.graph.source import Source

T = TypeVar("T")
OnStep: TypeAlias = Callable[[str], None]


class CannotRunError(UserError):
    """Neither this machine nor a device at hand runs what was compiled, and why."""


class Kernels(place.Kernels, TunedKernels, Protocol):
    """The kernels of a backend, with their schedules.

    `measured` are fields of schedules that won, by operation, as text.
    """

    @property
    def measured(self) -> Mapping[str, Fields]:
        """Schedules that take the place of the rule's."""


@dataclass(frozen=True)
class Built:
    """A compiled network: an artifact without a parity report.

    `calls` are the kernels of a frame in order: the operation of each, as text, or the name of one
    that TVM made. `source` is what the machine code was made from, where that can be run by itself.
    """

    artifact: Artifact
    calls: tuple[str, ...]
    source: str = ""


class Backend(Protocol):
    """One kind of machine that networks are compiled for. What works on networks asks it, and
    nothing else knows of kinds of machines. What most of them do alike is here."""

    kernels_version: int  # tuning records and latency tables are believed for one alone
    protocol: VisitProtocol  # how a latency table is measured unless the caller says
    trials: int  # candidates that tuning measures unless the caller says
    compiles_ahead: bool  # compiling does not disturb what is measured at the same time
    shares_kernels: bool  # networks have kernels in common, worth keeping for the next
    measures_memory: bool  # a network's memory is that of a process on this machine
    tunes_nests: bool  # tuning covers loop nests that TVM's own lowering made

    def record_threads(self, threads: int) -> int:
        """What records and tables have as their number of threads: as many as asked for, or 0
        where there are none."""
        return threads

    def tunes(self, target: Target) -> bool:
        """Whether code for this target takes measured schedules."""
        return True

    def has(self, operation: Operation) -> bool:
        """Whether there is a kernel for an operation."""

    def kernels(
        self, target: Target, threads: int, measured: Mapping[str, Fields], *, exact: bool = False
    ) -> Kernels | None:
        """The kernels for a target; None where it has none. `exact` leaves out those that round
        more than the plain sum of the products does."""

    def compile(self, job: Job, draft: Artifact, on_step: OnStep) -> Built:
        """Compile, and complete the draft of an artifact with its code; `on_step` is told what is
        being done. Raises UserError for an operator that cannot be lowered."""

    def package(self, job: Job, artifact: Artifact, folder: Path) -> list[Path]:
        """Write what a C program is built with into a folder: of a graph that was compiled, and
        checked, into `artifact`. Raises UserError where that cannot be."""
        raise UserError(f"--format c is for CPUs; {job.target.name} has no C library")

    def check_package(self, target: Target, folder: Path) -> None:
        """Raise UserError where `package` cannot write there, before long work."""
        raise UserError(f"--format c is for CPUs; {target.name} has no C library")

    def run_prefix(self, job: Job, given: NDArray[Any], remote: Remote | None) -> NDArray[Any]:
        """Compile a graph of one float output and run it on one input; no batch axis."""

    def try_out(
        self, built: Built, work: Callable[[Network, bool], T], remote: Remote | None,
        on_step: OnStep,
    ) -> tuple[T, dict[str, Any]]:  # fmt: skip
        """`work` on the network where it runs, which is told whether it is slow there, and what
        that machine is. Raises CannotRunError."""

    def timed(
        self, built: Built, entries: Sequence[tuple[Operation, int]]
    ) -> tuple[Artifact, tuple[Operation, ...]]:
        """An artifact whose parts are timed one by one, and the table's entry of each part;
        `entries` are those of the frame, in order, and how many of its calls each is."""

    def measured_target(self, target: Target, text: str) -> Target:
        """The target to measure where `text` asked for `target`: of the machine at hand. Raises
        UserError where there is none. The same where what measures it says whether it can."""
        return target

    def devices(self, threads: int, remote: Remote | None) -> Devices:
        """What measures: the devices that the user names, else this machine."""

    def architecture(self, target: Target) -> str:
        """What `DeviceInfo.architecture` is where code for the target runs."""
        return target.architecture

    def versions(self) -> dict[str, str]:
        """Of tools that make this backend's code, besides those of all."""
        return {}

    def peers(
        self, artifact: Artifact, source: "Source", given: NDArray[Any], threads: int
    ) -> Mapping[str, Callable[[], Peer]]:
        """What runs the network of `source` on the same machine instead, by name; each raises where
        it does not. Raises UserError for ends that are not timed there."""

    def optional_peers(
        self, artifact: Artifact, source: "Source", given: NDArray[Any], threads: int
    ) -> Mapping[str, Callable[[], Peer]]:
        """The same of peers that this project does not bring along: each raises UserError where it
        is not installed."""
        return {}

    def low_precision_peers(
        self, artifact: Artifact, source: "Source", given: NDArray[Any], threads: int
    ) -> Mapping[str, Callable[[], Peer]]:
        """Of those the ones that compute in less than float32, where the machine does."""
        return {}

    def tuning_bench(
        self, job: Job, rule: Artifact, threads: int, remote: Remote | None, *, emulated: bool
    ) -> TuningBench:
        """What measures candidates beside the rule's schedules, whose artifact is `rule`;
        `emulated` where the latencies of emulated devices will do. Raises UserError for a target
        without kernels of ours."""

    def check_place(self, threads: int | None, remote: Remote | None) -> None:
        """Raise UserError for options that do not go with this kind of machine."""
        return

    def where(self, target: Target) -> str:
        """How to check an artifact, ``{}``, on a machine that runs it; empty where none does."""
