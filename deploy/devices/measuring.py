"""A device for `deploy.measure`: the remote side of its protocols."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from numpy.typing import NDArray

from deploy.artifact import Artifact
from deploy.devices.network import Remote, RemoteNetwork, load_on
from deploy.devices.session import RemoteSession
from deploy.measure.device import DeviceInfo
from lut.errors import WorkError

T = TypeVar("T")


class RemoteDevice:
    """One device, held for as long as it measures; `on_device` makes it."""

    def __init__(self, session: RemoteSession, threads: int) -> None:
        self._session, self._threads = session, threads
        device = session.describe()
        if device is None:
            raise WorkError(
                f"device {session.name} does not say what it is, and a latency without its machine "
                "is worth nothing; start its server with hmseg-deploy device serve"
            )
        self.info = DeviceInfo(
            cpu=device.cpu,
            architecture=device.architecture,
            cores=device.cores,
            threads=threads,
            pinning=session.set_threads(threads),
            frame="from the image in the device's memory to the labels there",
            emulated=device.emulated,
        )

    @contextmanager
    def open(self, artifact: Artifact) -> Iterator["RemoteMeasuring"]:
        """Load an artifact beside those that are loaded already."""
        yield RemoteMeasuring(load_on(self._session, artifact, self._threads))


class RemoteMeasuring:
    """One artifact, loaded on a device, timed by the device's own clock."""

    def __init__(self, network: RemoteNetwork, given: NDArray[Any] | None = None) -> None:
        self._network = network
        self._image = network.artifact.golden_input if given is None else given

    def time_frames(self, frames: int) -> list[int]:
        """Nanoseconds of whole calls; the image is in the device's memory already, so its copy,
        which a local call includes, is not in them."""
        return self._network.time_frames(self._image, frames)

    def time_kernels(self, frames: int) -> list[list[int]]:
        """Nanoseconds of every kernel call, frame by frame."""
        kernels = len(self._network.artifact.calls)
        return self._network.library.time_kernels(self._image, frames, kernels)


def on_device(remote: Remote, work: Callable[[RemoteDevice], T]) -> T:
    """`work` with a device for measuring; again, on another or the same, where it is lost.

    `work` must go on from what it has saved. Raises UserError where there is no device, WorkError
    where its server does not say what it is.
    """
    return remote.on_one(lambda session: work(RemoteDevice(session, remote.threads)))
