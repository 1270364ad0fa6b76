"""The devices of a farm for `deploy.measure`: the remote side of its protocols."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from numpy.typing import NDArray

from deploy.artifact import Artifact
from deploy.devices.network import Remote, RemoteNetwork, load_on
from deploy.devices.session import RemoteSession
from deploy.devices.spread import spread
from deploy.measure.device import Device, DeviceInfo, Item, Result, Session
from lut.errors import UserError, WorkError


class RemoteDevices:
    """The devices behind one key, which must be of one description: their latencies are mixed.

    Raises UserError where there is no device, WorkError where its server does not say what it is.
    """

    def __init__(self, remote: Remote) -> None:
        self._remote = remote
        self.info = remote.on_one(self._info_of)  # of the first that is free

    def spread(
        self,
        items: Sequence[Item],
        work: Callable[[Device, Session, Item], Result],
        on_result: Callable[[Item, Result], None],
        *,
        reference: Artifact,
    ) -> None:
        """See `deploy.measure.device.Devices`; what a lost device measured, another does again."""
        loaded: dict[RemoteSession, tuple[RemoteDevice, RemoteMeasuring]] = {}

        def work_in(session: RemoteSession, item: Item) -> Result:
            if session not in loaded:
                self._check(session)
                device = RemoteDevice(session, self._remote.threads)
                loaded[session] = device, device.load(reference)
            return work(*loaded[session], item)

        spread(
            self._remote.farm, items, work_in, on_result=on_result, on_lost=self._remote.on_lost
        )  # fmt: skip

    def _info_of(self, session: RemoteSession) -> DeviceInfo:
        device = session.describe()
        if device is None:
            raise WorkError(
                f"device {session.name} does not say what it is, and a latency without its machine "
                "is worth nothing; start its server with hmseg-deploy device serve"
            )
        return DeviceInfo(
            cpu=device.cpu,
            architecture=device.architecture,
            cores=device.cores,
            pinning=session.set_threads(self._remote.threads),
            frame="from the image in the device's memory to the labels there",
            emulated=device.emulated,
        )

    def _check(self, session: RemoteSession) -> None:
        """Raise UserError unless a device is what the first one is."""
        info = self._info_of(session)
        wrong = [
            f"{name} {value!r}, not {getattr(self.info, name)!r}"
            for name, value in vars(info).items()
            if value != getattr(self.info, name)
        ]
        if wrong:
            raise UserError(
                f"device {session.name} is not like the first one behind its key: "
                f"{'; '.join(wrong)}; one table cannot mix them: serve it with another key"
            )


class RemoteDevice:
    """One device, held for as long as it measures."""

    def __init__(self, session: RemoteSession, threads: int) -> None:
        self.session, self._threads = session, threads

    @contextmanager
    def open(self, artifact: Artifact) -> Iterator["RemoteMeasuring"]:
        """Load an artifact beside those that are loaded already."""
        yield self.load(artifact)

    def load(self, artifact: Artifact) -> "RemoteMeasuring":
        """Load an artifact for as long as the session lasts."""
        return RemoteMeasuring(load_on(self.session, artifact, self._threads))


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
