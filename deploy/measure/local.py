"""This machine as the one device."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from numpy.typing import NDArray

from deploy import host
from deploy.artifact import Artifact
from deploy.measure.clock import empty_buffer, frames_in_buffer, kernel_times
from deploy.measure.device import Device, DeviceInfo, Item, Result, Session
from deploy.runtime import Network, open_artifact, pinning


class LocalDevice:
    """This machine, in this process, with `threads` of TVM's pool."""

    def __init__(self, threads: int) -> None:
        self.threads = threads

    @property
    def info(self) -> DeviceInfo:
        """What it is."""
        return DeviceInfo(
            cpu=host.cpu_model(),
            architecture=host.architecture(),
            cores=len(os.sched_getaffinity(0)),
            pinning=pinning(self.threads),
            frame="from the image in numpy to the labels in numpy",
            emulated=False,
        )

    @contextmanager
    def open(self, artifact: Artifact) -> Iterator["LocalSession"]:
        """Load an artifact."""
        yield LocalSession(open_artifact(artifact, "the network", threads=self.threads))

    def spread(
        self,
        items: Sequence[Item],
        work: Callable[[Device, Session, Item], Result],
        on_result: Callable[[Item, Result], None],
        *,
        reference: Artifact,
    ) -> None:
        """One item after the other: nothing else runs while one is measured."""
        one_by_one(self, items, work, on_result, reference)


def one_by_one(
    device: Device,
    items: Sequence[Item],
    work: Callable[[Device, Session, Item], Result],
    on_result: Callable[[Item, Result], None],
    reference: Artifact,
) -> None:
    """`Devices.spread` over one device."""
    with device.open(reference) as session:
        for item in items:
            on_result(item, work(device, session, item))


class LocalSession:
    """A network in this process."""

    def __init__(self, network: Network, given: NDArray[Any] | None = None) -> None:
        self.network = network
        self.image = network.artifact.golden_input if given is None else given

    def time_frames(self, frames: int) -> list[int]:
        """Nanoseconds of whole calls, from the image in numpy to the labels in numpy."""
        samples = []
        for _ in range(frames):
            start = time.perf_counter_ns()
            self.network(self.image)
            samples.append(time.perf_counter_ns() - start)
        return samples

    def time_kernels(self, frames: int) -> list[list[int]]:
        """Nanoseconds of every kernel call, frame by frame."""
        times: list[list[int]] = []
        most = frames_in_buffer(len(self.network.artifact.calls))
        while len(times) < frames:
            buffer, count = empty_buffer(), min(most, frames - len(times))
            for _ in range(count):
                self.network.read_clocks(self.image, buffer)
            times += kernel_times(buffer, count)
        return times
