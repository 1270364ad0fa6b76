"""The compiled network beside onnxruntime: same process, same threads, image to labels."""

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from deploy.artifact import Artifact, save_artifact
from deploy.graph.export import save_onnx
from deploy.graph.reference import OnnxSession
from deploy.measure.interleave import Protocol, Samples, interleave
from deploy.measure.memory import PeakMemory, measure_peak
from deploy.measure.statistics import Ratio, Summary, ratio_of_rounds, summarise
from deploy.metadata import Metadata
from deploy.profile import Profile, profile_here, require_timed
from deploy.runtime import open_artifact

OURS, PEER = "hmseg", "onnxruntime"


@dataclass(frozen=True)
class BenchResult:
    """One run of the two sides."""

    samples: dict[str, Samples]
    memory: dict[str, PeakMemory]
    threads: int
    metadata: Metadata
    profile: Profile | None = None  # of the same loaded network, after it

    @property
    def includes(self) -> str:
        """What the time includes, in words."""
        return time_includes(self.metadata)

    @property
    def calls(self) -> dict[str, list[int]]:
        """Nanoseconds of every call of each side."""
        return {name: list(chain.from_iterable(rounds)) for name, rounds in self.samples.items()}

    @property
    def summaries(self) -> dict[str, Summary]:
        """Latencies of each side over all rounds."""
        return {name: summarise(calls) for name, calls in self.calls.items()}

    @property
    def ratio(self) -> Ratio:
        """onnxruntime's time over ours."""
        return ratio_of_rounds(self.samples[PEER], self.samples[OURS])

    def to_json(self) -> dict[str, Any]:
        """For --json: summaries, ratio, memory, raw samples."""
        return {
            "input": self.metadata.input,
            "output": self.metadata.output,
            "threads": self.threads,
            "includes": self.includes,
            "latency": {name: summary.to_json() for name, summary in self.summaries.items()},
            "ratio": asdict(self.ratio) | {"of": f"{PEER} time / {OURS} time"},
            "memory": {
                name: asdict(peak) | {"network_kib": peak.network_kib}
                for name, peak in self.memory.items()
            },
            "samples_ns": self.samples,
        } | ({"profile": self.profile.to_json()} if self.profile else {})


def time_includes(metadata: Metadata) -> str:
    """What the time of a whole frame on this machine includes, in words."""
    taken = "uint8 image" if metadata.input == "image" else "float32 tensor"
    return f"the copy of the {taken} in, the whole network, and the {metadata.output} map out"


def bench(
    artifact: Artifact,
    model: onnx.ModelProto,
    image: NDArray[np.uint8],
    protocol: Protocol,
    *,
    threads: int,
    profiled: bool = False,
    on_round: Callable[[int], None] = lambda _: None,
) -> BenchResult:
    """Time an artifact and onnxruntime on the graph it was compiled from, on one image uint8
    (H, W, 3), which is normalised before where they take a tensor.

    The two alternate in blocks within this process (deploy.measure.interleave); memory is measured
    in processes of their own. Where `profiled`, the network's kernels are timed too, afterwards.
    Raises UserError as `deploy.profile.time_network` does, before anything is timed.
    """
    if profiled:
        require_timed(artifact, "the artifact")
    network = open_artifact(artifact, "the artifact", threads=threads)
    session = OnnxSession(model, threads=threads)
    given = artifact.metadata.network_input(image)
    sides: dict[str, Callable[[], object]] = {
        OURS: lambda: network(given),
        PEER: lambda: session.run(given),
    }
    samples = interleave(sides, protocol, on_round)
    profile = profile_here(network, given, threads) if profiled else None
    with tempfile.TemporaryDirectory(prefix="hmseg-") as folder:
        files = {OURS: Path(folder) / "n.hmseg", PEER: Path(folder) / "n.onnx"}
        save_artifact(artifact, files[OURS])
        save_onnx(model, files[PEER])
        memory = {
            OURS: measure_peak("artifact", files[OURS], threads=threads),
            PEER: measure_peak("onnx", files[PEER], threads=threads),
        }
    return BenchResult(samples, memory, threads, artifact.metadata, profile)
