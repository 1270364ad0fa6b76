"""This machine's GPU as the one device that networks are timed on."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from deploy.artifact import Artifact
from deploy.gpu.driver import Driver
from deploy.gpu.kernels import GpuKernels
from deploy.gpu.network import GpuNetwork
from deploy.measure.device import Device, DeviceInfo, Item, Result, Session
from deploy.measure.local import one_by_one
from lut.ops import expand, parse_operation


class GpuDevice:
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
        )

    @contextmanager
    def open(self, artifact: Artifact) -> Iterator["GpuSession"]:
        """Load an artifact."""
        network = GpuNetwork(artifact, self._driver)
        try:
            yield GpuSession(network)
        finally:
            network.close()

    def spread(
        self,
        items: Sequence[Item],
        work: Callable[[Device, Session, Item], Result],
        on_result: Callable[[Item, Result], None],
        *,
        reference: Artifact,
    ) -> None:
        """One item after the other."""
        one_by_one(self, items, work, on_result, reference)


class GpuSession:
    """A network on the GPU, timed by the GPU's events."""

    def __init__(self, network: GpuNetwork) -> None:
        self._network, self._image = network, network.artifact.golden_input
        # What `deploy.gpu.factory` has built names its entries, of some launches each.
        calls = map(parse_operation, network.artifact.calls)
        self._parts = [len(expand(entry, GpuKernels().has)) for entry in calls] or None

    def time_frames(self, frames: int) -> list[int]:
        """Nanoseconds of the compute part of whole frames: their graph, without the copies."""
        return [_ns(t.compute_ms) for t in self._network.time_frames(self._image, frames)]

    def time_kernels(self, frames: int) -> list[list[int]]:
        """Nanoseconds of every entry's launches, of every launch in an artifact that names no
        entries, frame by frame."""
        times = self._network.time_kernels(self._image, frames, self._parts)
        return [[_ns(ms) for ms in frame] for frame in zip(*(s for _, s in times), strict=True)]


def _ns(milliseconds: float) -> int:
    return round(milliseconds * 1e6)
