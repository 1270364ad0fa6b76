"""The devices of a place for `deploy.measure`: the remote side of its protocols."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from deploy.artifact import Artifact
from deploy.cpu.isa import elements_of
from deploy.cpu.pipeline import isa_of
from deploy.devices.kernels import kernel_library, remote_kernels
from deploy.devices.network import Remote, RemoteLibrary, load_on
from deploy.devices.place import DeviceSession
from deploy.devices.spread import spread
from deploy.measure.ceilings import Ceilings
from deploy.measure.device import Device, DeviceInfo, Item, Result, Session
from deploy.measure.interleave import Protocol
from deploy.measure.kernels import Kernels
from deploy.measure.probes import probe_ceilings
from deploy.runtime import Network, check_input
from lut.errors import UserError, WorkError


class RemoteDevices:
    """The devices of one place, which must be of one description: their latencies are mixed.

    Raises UserError where there is no device, WorkError where its server does not say what it is.
    """

    def __init__(self, remote: Remote) -> None:
        self._remote = remote

    @cached_property
    def info(self) -> DeviceInfo:
        """Of the first that is free."""
        return self._remote.on_one(self._info_of)

    def use(self, artifact: Artifact, work: Callable[[Session], Result]) -> Result:
        """As `Devices.use`."""
        return self._remote.use(artifact, lambda network: work(RemoteMeasuring(network)))

    def spread(
        self,
        items: Sequence[Item],
        work: Callable[[Device, Session, Item], Result],
        on_result: Callable[[Item, Result], None],
        *,
        reference: Artifact,
    ) -> None:
        """See `deploy.measure.device.Devices`; what a lost device measured, another does again."""
        info = self.info  # before the devices are taken: asking takes one
        loaded: dict[DeviceSession, tuple[RemoteDevice, RemoteMeasuring]] = {}

        def work_in(session: DeviceSession, item: Item) -> Result:
            if session not in loaded:
                self._check(session, info)
                device = RemoteDevice(session, self._remote.threads)
                loaded[session] = device, device.load(reference)
            return work(*loaded[session], item)

        spread(
            self._remote.place, items, work_in, on_result=on_result, on_lost=self._remote.on_lost
        )  # fmt: skip

    def _info_of(self, session: DeviceSession) -> DeviceInfo:
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

    def _check(self, session: DeviceSession, wanted: DeviceInfo) -> None:
        """Raise UserError unless a device is what the first one is."""
        wrong = [
            f"{name} {value!r}, not {getattr(wanted, name)!r}"
            for name, value in vars(self._info_of(session)).items()
            if value != getattr(wanted, name)
        ]
        if wrong:
            raise UserError(
                f"device {session.name} is not like the first one behind its key: "
                f"{'; '.join(wrong)}; one table cannot mix them: serve it with another key"
            )


class RemoteDevice:
    """One device, held for as long as it measures."""

    def __init__(self, session: DeviceSession, threads: int) -> None:
        self.session, self._threads = session, threads

    @contextmanager
    def open(self, artifact: Artifact) -> Iterator["RemoteMeasuring"]:
        """Load an artifact beside those that are loaded already."""
        yield self.load(artifact)

    def load(self, artifact: Artifact) -> "RemoteMeasuring":
        """Load an artifact for as long as the session lasts."""
        return RemoteMeasuring(load_on(self.session, artifact, self._threads))


class RemoteMeasuring(Session):
    """One artifact, loaded on a device, timed by the device's own clock.

    The input is in the device's memory already: its copy, which a local call includes, is in no
    figure, nor is the network between the machines.
    """

    def __init__(self, network: Network) -> None:
        assert isinstance(network.loaded, RemoteLibrary)
        self.network, self._library = network, network.loaded
        self.given = network.artifact.golden_input

    @property
    def machine(self) -> dict[str, Any]:
        """The device, in the session that measures it."""
        return self._library.session.report()

    @property
    def includes(self) -> str:
        """As `Session.includes`."""
        metadata = self.network.metadata
        taken = "uint8 image" if metadata.input == "image" else "float32 tensor"
        start, end = f"the {taken} in the device's memory", f"the {metadata.output} map"
        return f"the whole network, from {start} to {end}"

    def block(self, protocol: Protocol) -> list[int]:
        """As `Session.block`."""
        check_input(self.given, self.network.metadata)
        protocol.sleep(protocol.pause_s)
        calls = self._library.time("main", self.given, protocol.warmup + protocol.repeat)
        return calls[protocol.warmup :]

    def time_frames(self, frames: int) -> list[int]:
        """Nanoseconds of whole calls."""
        return self._library.time("main", self.given, frames)

    def time_kernels(self, frames: int) -> list[list[int]]:
        """Nanoseconds of every kernel call, frame by frame."""
        kernels = len(self.network.artifact.calls)
        return self._library.time_kernels(self.given, frames, kernels)

    def ceilings(self, threads: int) -> Ceilings | None:
        """With the instructions that the artifact was compiled for: what else the device has is not
        known in LLVM's words."""
        session, target = self._library.session, self.network.artifact.target
        isa = isa_of(target)
        if isa is None:
            return None

        def load(functions: Mapping[str, Any]) -> Kernels:
            return remote_kernels(session, kernel_library(functions, target))

        elements = elements_of(isa, target.features).values()
        return probe_ceilings(load, isa, threads, elements=elements)
