"""This machine's GPU as the one device that networks are timed on."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from deploy.artifact import Artifact
from deploy.gpu.driver import Driver
from deploy.gpu.kernels import GpuKernels
from deploy.gpu.network import GpuNetwork
from deploy.gpu.program import GpuProgram
from deploy.host import running_machine
from deploy.measure.device import DeviceInfo, OneDevice, Session
from deploy.measure.interleave import Protocol, time_block
from deploy.runtime import Network
from lut.errors import UserError
from lut.ops import expand, parse_operation


class GpuDevice(OneDevice):
    """The GPU; raises UserError where there is none."""

    def __init__(self) -> None:
        self._driver = Driver()

    @property
    def info(self) -> DeviceInfo:
        """What it is."""
        driver = self._driver
        return DeviceInfo(
            cpu=driver.name,
            architecture=driver.architecture,
            cores=driver.multiprocessors,
            pinning="one stream, a CUDA graph for each frame",
            frame="the compute part: from the image in the GPU's memory to the labels there",
            emulated=False,
            versions={"nvidia-driver-cuda": driver.version},
            host=running_machine(),
        )

    @contextmanager
    def open(self, artifact: Artifact) -> Iterator["GpuSession"]:
        """Load an artifact."""
        if not isinstance(artifact.code, GpuProgram):
            raise UserError("the artifact holds no code for a GPU")
        loaded = GpuNetwork(artifact.code, artifact.metadata, self._driver)
        try:
            yield GpuSession(Network(artifact, loaded), loaded)
        finally:
            loaded.close()


class GpuSession(Session):
    """A network on the GPU, timed by the GPU's events."""

    includes = (
        "the copy of the image to the GPU, the whole network, and the labels back on the host"
    )

    def __init__(self, network: Network, loaded: GpuNetwork) -> None:
        self.network, self.loaded = network, loaded
        self.given = network.artifact.golden_input
        self._warm = False
        # What was built for a latency table names its entries, of some launches each.
        calls = map(parse_operation, network.artifact.calls)
        self._parts = [len(expand(entry, GpuKernels().has)) for entry in calls] or None

    @property
    def machine(self) -> dict[str, Any]:
        """The GPU, and the code that was chosen for it."""
        device = self.loaded.device
        what = {"machine": device["gpu"], "architecture": self.loaded.code, "emulated": False}
        return what | device

    def block(self, protocol: Protocol) -> list[int]:
        """As `Session.block`, by this machine's clock."""
        if not self._warm:  # the first: the GPU has perhaps idled since it was loaded
            self.loaded.warm_up(self.given)
            self._warm = True
        return time_block(lambda: self.network(self.given), protocol)

    def time_frames(self, frames: int) -> list[int]:
        """Nanoseconds of the compute part of whole frames: their graph, without the copies."""
        return list(map(_ns, self.loaded.time_frames(self.given, frames)["compute"]))

    def time_kernels(self, frames: int) -> list[list[int]]:
        """Nanoseconds of every entry's launches, of every launch in an artifact that names no
        entries, frame by frame."""
        times = self.loaded.time_kernels(self.given, frames, self._parts)
        return [[_ns(ms) for ms in frame] for frame in zip(*(s for _, s in times), strict=True)]

    def time_parts(self, frames: int) -> dict[str, list[int]]:
        """The copy in, the launches, the copy out."""
        self.loaded.warm_up(self.given)  # what ran last was perhaps another's
        parts = self.loaded.time_frames(self.given, frames)
        return {name: list(map(_ns, times)) for name, times in parts.items()}


def _ns(milliseconds: float) -> int:
    return round(milliseconds * 1e6)
