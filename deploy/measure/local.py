"""This machine as the one device."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from deploy import host
from deploy.artifact import Artifact
from deploy.cpu.isa import elements_of
from deploy.cpu.loaded import PINNING, LoadedLibrary
from deploy.cpu.pipeline import isa_of
from deploy.cpu.targets import host_target
from deploy.measure.ceilings import Ceilings
from deploy.measure.device import DeviceInfo, OneDevice, Session
from deploy.measure.interleave import Protocol, time_block
from deploy.measure.probes import load_here, probe_ceilings
from deploy.runtime import Network, open_artifact


class LocalDevice(OneDevice):
    """This machine, in this process, with `threads` for each call."""

    def __init__(self, threads: int) -> None:
        self.threads = threads

    @property
    def info(self) -> DeviceInfo:
        """What it is."""
        return DeviceInfo(
            cpu=host.cpu_model(),
            architecture=host.architecture(),
            cores=len(os.sched_getaffinity(0)),
            pinning=PINNING,
            frame="from the image in numpy to the labels in numpy",
            emulated=False,
            host=host.running_machine(),
        )

    @contextmanager
    def open(self, artifact: Artifact) -> Iterator["LocalSession"]:
        """Load an artifact."""
        yield LocalSession(open_artifact(artifact, "the network", threads=self.threads))


class LocalSession(Session):
    """A network in this process."""

    def __init__(self, network: Network) -> None:
        assert isinstance(network.loaded, LoadedLibrary)
        self.network, self._library = network, network.loaded
        self.given = network.artifact.golden_input

    @property
    def machine(self) -> dict[str, Any]:
        """This machine."""
        architecture = host.architecture()
        return {"machine": host.cpu_model(), "architecture": architecture, "emulated": False}

    @property
    def includes(self) -> str:
        """As `Session.includes`."""
        metadata = self.network.metadata
        taken = "uint8 image" if metadata.input == "image" else "float32 tensor"
        return f"the copy of the {taken} in, the whole network, and the {metadata.output} map out"

    def block(self, protocol: Protocol) -> list[int]:
        """As `Session.block`."""
        return time_block(lambda: self.network(self.given), protocol)

    def time_frames(self, frames: int) -> list[int]:
        """Nanoseconds of whole calls, from the image in numpy to the labels in numpy."""
        samples = []
        for _ in range(frames):
            start = time.perf_counter_ns()
            self.network(self.given)
            samples.append(time.perf_counter_ns() - start)
        return samples

    def time_kernels(self, frames: int) -> list[list[int]]:
        """Nanoseconds of every kernel call, frame by frame."""
        return [self._library.time_kernels(self.given) for _ in range(frames)]

    def ceilings(self, threads: int) -> Ceilings | None:
        """Of this machine, also for a binary that was compiled for less."""
        target = host_target()
        isa = isa_of(target)
        if isa is None:
            return None
        load = load_here(target, threads)
        elements = elements_of(isa, target.features).values()
        return probe_ceilings(load, isa, threads, elements=elements)
