"""A network on a GPU beside what a user would run there instead: one process, in turn."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray

from deploy.artifact import Artifact
from deploy.gpu.network import FrameTime, GpuNetwork
from deploy.gpu.peers import makers
from deploy.measure.interleave import Protocol, Samples, interleave
from deploy.measure.statistics import Ratio, Summary, ratio_of_rounds, summarise
from lut.errors import UserError

if TYPE_CHECKING:
    from torch import nn

OURS = "hmseg"
INCLUDES = "the copy of the image to the GPU, the whole network, and the labels back on the host"
MOST_DIFFERING = 0.01  # of the pixels: between two fp32 networks only ties may differ


@dataclass(frozen=True)
class GpuBenchResult:
    """Wall-clock samples of every side, and the parts of our frames by the GPU's own events."""

    samples: dict[str, Samples]
    parts: list[FrameTime]
    device: dict[str, Any]
    absent: dict[str, str]  # peers that are not timed here, and why
    notes: dict[str, str] = field(default_factory=dict)  # on peers that are
    differing: dict[str, float] = field(default_factory=dict)  # share of pixels, by peer

    @property
    def calls(self) -> dict[str, list[int]]:
        """Nanoseconds of each side over all rounds."""
        return {name: list(chain.from_iterable(rounds)) for name, rounds in self.samples.items()}

    @property
    def summaries(self) -> dict[str, Summary]:
        """Latencies of each side over all rounds."""
        return {name: summarise(calls) for name, calls in self.calls.items()}

    @property
    def differing_text(self) -> str:
        """Each peer's share of pixels whose labels are not ours, in one line."""
        return ", ".join(f"{name} {share:.4%}" for name, share in self.differing.items())

    @property
    def ratios(self) -> dict[str, Ratio]:
        """Each peer's time over ours."""
        ours = self.samples[OURS]
        return {
            name: ratio_of_rounds(rounds, ours)
            for name, rounds in self.samples.items()
            if name != OURS
        }

    def to_json(self) -> dict[str, Any]:
        """For --json and for the results."""
        return {
            "device": self.device,
            "includes": INCLUDES,
            "latency": {name: summary.to_json() for name, summary in self.summaries.items()},
            "ratios": {name: asdict(ratio) for name, ratio in self.ratios.items()},
            "parts_ms": {
                part: float(np.median([getattr(frame, part) for frame in self.parts]))
                for part in ("upload_ms", "compute_ms", "download_ms")
            },
            "absent": self.absent,
            "notes": self.notes,
            "differing_labels": self.differing,
            "samples_ns": self.samples,
        }


def bench_gpu(
    artifact: Artifact,
    graph: onnx.ModelProto,
    network: "nn.Module | None",
    image: NDArray[np.uint8],
    protocol: Protocol,
    on_round: Callable[[int], None] = lambda _: None,
) -> GpuBenchResult:
    """Time an artifact with labels beside torch, torch.compile, onnxruntime and TensorRT on the
    same GPU, as far as they are there; each side returns its labels on the host.

    A peer whose labels are not ours is not timed where both compute in fp32. Raises UserError where
    there is no GPU, or for another input and output than image and labels.
    """
    require_ends(artifact.metadata.input, artifact.metadata.output)
    ours = GpuNetwork(artifact)
    wanted = ours(image)
    sides: dict[str, Callable[[], object]] = {OURS: lambda: ours(image)}
    absent: dict[str, str] = {}
    notes: dict[str, str] = {}
    differing: dict[str, float] = {}
    for name, start in makers(network, graph, image).items():
        try:
            peer = start()
            labels = peer.run()  # builds what is built at the first call
        except Exception as error:
            absent[name] = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            continue
        differing[name] = differing_share(labels, wanted)
        if artifact.target.precision == "fp32" and not differing[name] <= MOST_DIFFERING:
            absent[name] = f"its labels differ from ours in {differing[name]:.2%} of the pixels"
            continue
        sides[name] = peer.run
        if peer.note:
            notes[name] = peer.note
    ours.warm_up(image)
    samples = interleave(sides, protocol, on_round)
    ours.warm_up(image)  # the last side was perhaps another's
    parts = ours.time_frames(image, protocol.repeat * protocol.rounds)
    return GpuBenchResult(samples, parts, ours.device, absent, notes, differing)


def require_ends(input_: str, output: str) -> None:
    """Raise UserError unless a network takes an image and gives labels."""
    if input_ != "image" or output != "labels":
        raise UserError("the GPU is timed from image to labels: leave --input and --output out")


def differing_share(labels: NDArray[Any], wanted: NDArray[Any]) -> float:
    """Of the pixels, those whose labels differ; 1 where even the sizes do."""
    return float(np.mean(labels != wanted)) if labels.shape == wanted.shape else 1.0
