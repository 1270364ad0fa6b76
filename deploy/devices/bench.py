"""Timing a network on a device. onnxruntime cannot stand beside it: TVM's RPC runs TVM's code."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.artifact import Artifact
from deploy.devices.network import Remote, RemoteNetwork
from deploy.devices.profile import profile_there
from deploy.measure.interleave import Protocol
from deploy.measure.statistics import Summary, summarise
from deploy.metadata import Metadata
from deploy.profile import Profile, require_timed

EMULATED = "EMULATED: this says nothing of the latency on any ARM processor"


@dataclass(frozen=True)
class RemoteBench:
    """Latencies of one network on one device."""

    samples: list[list[int]]  # nanoseconds, a list per round
    device: dict[str, Any]  # `RemoteNetwork.report`
    threads: int
    metadata: Metadata
    profile: Profile | None = None  # of the same loaded network, after it

    @property
    def includes(self) -> str:
        """What the time includes, in words."""
        return time_includes(self.metadata)

    @property
    def calls(self) -> list[int]:
        """Nanoseconds of every call."""
        return [sample for block in self.samples for sample in block]

    @property
    def summary(self) -> Summary:
        """Latencies over all rounds."""
        return summarise(self.calls)

    def to_json(self) -> dict[str, Any]:
        """For --json."""
        return {
            "output": self.metadata.output,
            "threads": self.threads,
            "machine": self.device,
            "includes": self.includes,
            "latency": {"hmseg": self.summary.to_json()},
            "samples_ns": {"hmseg": self.samples},
        } | ({"profile": self.profile.to_json()} if self.profile else {})


def time_includes(metadata: Metadata) -> str:
    """What the time of a whole frame on a device includes, in words."""
    taken = "uint8 image" if metadata.input == "image" else "float32 tensor"
    start, end = f"the {taken} in the device's memory", f"the {metadata.output} map"
    return f"the whole network, from {start} to {end}"


def bench_remote(
    artifact: Artifact,
    image: NDArray[np.uint8],
    protocol: Protocol,
    remote: Remote,
    *,
    profiled: bool = False,
) -> RemoteBench:
    """Time an artifact on one image uint8 (H, W, 3), in rounds, and where `profiled` its kernels;
    all of it again where the device is lost.

    Raises UserError as `deploy.profile.time_network` does, before anything is timed.
    """
    if profiled:
        require_timed(artifact, "the artifact")
    given = artifact.metadata.network_input(image)

    def measure(network: RemoteNetwork) -> RemoteBench:
        samples = []
        for _ in range(protocol.rounds):
            protocol.sleep(protocol.pause_s)
            block = network.time_frames(given, protocol.warmup + protocol.repeat)
            samples.append(block[protocol.warmup :])
        profile = profile_there(network, given, remote.threads) if profiled else None
        return RemoteBench(samples, network.report(), remote.threads, artifact.metadata, profile)

    return remote.use(artifact, measure)
