"""The seam between work and devices: what a device must do so that networks run on it.

Behind it are TVM's RPC (`session`) and a program of ours over ssh or adb (`player`).
"""

from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar

from numpy.typing import NDArray

from deploy.devices.describe import Description
from deploy.measure.kernels import Machine, Module

T = TypeVar("T")


class DeviceSession(Machine, Protocol):
    """A device that is ours for as long as the session is open.

    Its calls raise DeviceLostError where the device is gone or does not answer in time, WorkError
    for anything else that fails on it.
    """

    name: str  # for messages

    def describe(self) -> Description | None:
        """What the device says it is; None where it does not say."""

    def report(self) -> dict[str, Any]:
        """This device, for a manifest, a record or --json: `machine`, `architecture`, `emulated`
        and how it was reached."""

    def upload(self, library: bytes) -> Module:
        """Send a shared library and load it."""

    def set_threads(self, threads: int) -> str:
        """How many threads run single kernels; how they are bound, in words."""

    def read(self, tensor: Any) -> NDArray[Any]:  # noqa: ANN401
        """The contents of a tensor there."""


class Place(Protocol):
    """Devices that a user names: one, or several of a kind."""

    @property
    def name(self) -> str:
        """What the user calls it."""

    def count(self) -> int:
        """How many devices there are. Raises UserError where there is none."""

    def open(self, patience_s: float = 0.0) -> AbstractContextManager[DeviceSession]:
        """Take a device, which is given back when the block ends, however it ends. `patience_s` is
        how long to go on trying. Raises UserError where there is none, WorkError where all are busy
        or what was there is lost."""
