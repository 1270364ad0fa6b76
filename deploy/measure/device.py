"""The seam between measuring and devices: what a device must do so that networks are timed on it.

`deploy.measure.local` is this machine; `deploy.devices` is any machine behind TVM's RPC. Both time
the same artifact, and neither changes what it measures.

On a CPU the times of single kernels come from an entry of the library itself, which reads the
device's own clock: the kernels meet the caches as in the network, and one remote call runs any
number of frames. On a GPU (`deploy.measure.gpu`) events between the launches give them.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from numpy.typing import NDArray

from deploy.artifact import Artifact
from deploy.measure.ceilings import Ceilings
from deploy.measure.interleave import Protocol as Protocol_
from deploy.runtime import Network

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class DeviceInfo:
    """What a latency depends on besides the network; it enters a table's provenance."""

    cpu: str  # as the device's kernel names it; of a GPU, as its driver does
    architecture: str  # as ``uname -m`` prints it; of a GPU such as ``sm_61``
    cores: int  # of a GPU, multiprocessors
    pinning: str  # how the pool's threads are bound to cores, in words
    frame: str  # what the time of a whole frame includes, in words
    emulated: bool  # its latencies mean nothing and never enter a table that ships
    versions: dict[str, str] = field(default_factory=dict)  # of what runs there besides our tools
    host: str = ""  # tells machines of one kind apart, where that is known; no name


class Session(Protocol):
    """One artifact, loaded on a device."""

    network: Network
    given: NDArray[Any]  # the input that frames are timed on: at first the golden one

    @property
    def machine(self) -> dict[str, Any]:
        """What it is loaded on, for a report: at least `machine`, `architecture`, `emulated`."""

    @property
    def includes(self) -> str:
        """What the time of a whole frame includes, in words."""

    def block(self, protocol: Protocol_) -> list[int]:
        """Nanoseconds of each call of a block, after a pause and a warm-up."""

    def time_frames(self, frames: int) -> list[int]:
        """Nanoseconds of each of `frames` whole frames, which include what `DeviceInfo.frame`
        says."""

    def time_kernels(self, frames: int) -> list[list[int]]:
        """For each frame the nanoseconds of every one of the artifact's `calls`, in order."""

    def time_parts(self, frames: int) -> dict[str, list[int]]:
        """Nanoseconds of a frame's parts, by name, where the device tells them apart."""
        return {}

    def ceilings(self, threads: int) -> Ceilings | None:
        """What the device can do at most, measured; None where there is no probe for it."""
        return None


class Device(Protocol):
    """A machine that networks are timed on."""

    def open(self, artifact: Artifact) -> AbstractContextManager[Session]:
        """Load an artifact; leaving the context unloads it.

        Raises UserError where the device cannot run the artifact's target, WorkError where the
        device is lost.
        """


class Devices(Protocol):
    """One machine or several of the same description, which measure at once."""

    @property
    def info(self) -> DeviceInfo:
        """What each of them is."""

    def use(self, artifact: Artifact, work: Callable[[Session], Result]) -> Result:
        """`work` on an artifact, loaded on one of them; from the start again on another where that
        one is lost."""

    def spread(
        self,
        items: Sequence[Item],
        work: Callable[[Device, Session, Item], Result],
        on_result: Callable[[Item, Result], None],
        *,
        reference: Artifact,
    ) -> None:
        """Do `work` on every item, with a device that is its own and, loaded there, `reference`.

        `on_result` is called for each item as it is done, one at a time, in any order. Raises what
        `work` raises, UserError for a device that is not like the others, and WorkError where none
        is left.
        """


class OneDevice(Device, Protocol):
    """`Devices` of which there is one: nothing else runs while something is measured."""

    def use(self, artifact: Artifact, work: Callable[[Session], Result]) -> Result:
        """As `Devices.use`."""
        with self.open(artifact) as session:
            return work(session)

    def spread(
        self, items: Sequence[Item], work: Callable[[Device, Session, Item], Result],
        on_result: Callable[[Item, Result], None], *, reference: Artifact,
    ) -> None:  # fmt: skip
        """One item after the other."""
        with self.open(reference) as session:
            for item in items:
                on_result(item, work(self, session, item))
