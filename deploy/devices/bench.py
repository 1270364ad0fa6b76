"""Timing a network on a device. onnxruntime cannot stand beside it: TVM's RPC runs TVM's code."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.artifact import Artifact
from deploy.devices.network import Remote, RemoteNetwork
from deploy.measure.interleave import Protocol
from deploy.measure.statistics import Summary, summarise

INCLUDES = "the whole network, from the uint8 image in the device's memory to the {output} map"
EMULATED = "EMULATED: this says nothing of the latency on any ARM processor"


@dataclass(frozen=True)
class RemoteBench:
    """Latencies of one network on one device."""

    samples: list[list[int]]  # nanoseconds, a list per round
    device: dict[str, Any]  # `RemoteNetwork.report`
    threads: int
    output: str

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
            "output": self.output,
            "threads": self.threads,
            "machine": self.device,
            "includes": INCLUDES.format(output=self.output),
            "latency": {"hmseg": self.summary.to_json()},
            "samples_ns": {"hmseg": self.samples},
        }


def bench_remote(
    artifact: Artifact, image: NDArray[np.uint8], protocol: Protocol, remote: Remote
) -> RemoteBench:
    """Time an artifact on one image, in rounds; all of them again where the device is lost."""

    def measure(network: RemoteNetwork) -> tuple[list[list[int]], dict[str, Any]]:
        samples = []
        for _ in range(protocol.rounds):
            protocol.sleep(protocol.pause_s)
            block = network.time_frames(image, protocol.warmup + protocol.repeat)
            samples.append(block[protocol.warmup :])
        return samples, network.report()

    samples, device = remote.use(artifact, measure)
    return RemoteBench(samples, device, remote.threads, artifact.metadata.output)
