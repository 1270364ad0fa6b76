"""A network on a GPU beside what a user would run there instead: one process, in turn."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray

from deploy.artifact import Artifact
from deploy.gpu.network import FrameTime, GpuNetwork
from deploy.measure.interleave import Protocol, Samples, interleave
from deploy.measure.statistics import Ratio, Summary, ratio_of_rounds, summarise
from lut.errors import UserError

if TYPE_CHECKING:
    from torch import nn

OURS = "hmseg"
INCLUDES = "the copy of the image to the GPU, the whole network, and the labels back on the host"

Side = Callable[[], object]


@dataclass(frozen=True)
class GpuBenchResult:
    """Wall-clock samples of every side, and the parts of our frames by the GPU's own events."""

    samples: dict[str, Samples]
    parts: list[FrameTime]
    device: dict[str, Any]
    absent: dict[str, str]  # peers that do not run here, and why

    @property
    def summaries(self) -> dict[str, Summary]:
        """Latencies of each side over all rounds."""
        return {
            name: summarise(list(chain.from_iterable(rounds)))
            for name, rounds in self.samples.items()
        }

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
    same GPU, as far as they are there; each side returns the same labels on the host.

    Raises UserError where there is no GPU.
    """
    if artifact.metadata.input != "image" or artifact.metadata.output != "labels":
        raise UserError("the GPU is timed from image to labels: leave --input and --output out")
    ours = GpuNetwork(artifact)
    sides: dict[str, Side] = {OURS: lambda: ours(image)}
    absent: dict[str, str] = {}
    makers: Mapping[str, Callable[[], Side]] = {
        "torch eager": lambda: _torch(network, image, compiled=False),
        "torch.compile": lambda: _torch(network, image, compiled=True),
        "onnxruntime CUDA": lambda: _onnxruntime(graph, image, "CUDAExecutionProvider"),
        "TensorRT": lambda: _onnxruntime(graph, image, "TensorrtExecutionProvider"),
    }
    for name, make in makers.items():
        try:
            side = make()
            side()  # builds what is built at the first call
            sides[name] = side
        except Exception as error:
            absent[name] = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    samples = interleave(sides, protocol, on_round)
    parts = ours.time_frames(image, protocol.repeat * protocol.rounds)
    return GpuBenchResult(samples, parts, ours.device, absent)


def _torch(network: "nn.Module | None", image: NDArray[np.uint8], *, compiled: bool) -> Side:
    import torch

    from hmseg.data.normalise import MEAN, STD

    if network is None:
        raise UserError("a user's ONNX file has no torch module")
    if not torch.cuda.is_available():
        raise UserError(f"torch {torch.__version__} sees no GPU")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    module = network.eval().cuda()
    mean, std = (torch.tensor(v, device="cuda").view(1, 3, 1, 1) for v in (MEAN, STD))

    def labels(pixels: "torch.Tensor") -> "torch.Tensor":
        planes = pixels.permute(2, 0, 1)[None].float() / 255
        scores: torch.Tensor = module((planes - mean) / std)
        return scores.argmax(1).to(torch.uint8)

    run = torch.compile(labels, mode="reduce-overhead") if compiled else labels
    pinned = torch.from_numpy(image.copy()).pin_memory()

    def side() -> object:
        with torch.inference_mode():
            return run(pinned.cuda(non_blocking=True)).cpu()

    for _ in range(3):  # torch.compile records its graph at the second call
        side()
    return side


def _onnxruntime(graph: onnx.ModelProto, image: NDArray[np.uint8], provider: str) -> Side:
    import onnxruntime

    if provider not in onnxruntime.get_available_providers():
        raise UserError(f"{provider} is not in the installed onnxruntime")
    options: dict[str, object] = {"use_tf32": 0} if provider.startswith("CUDA") else {}
    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), providers=[(provider, options)]
    )
    if session.get_providers()[0] != provider:
        raise UserError(f"onnxruntime could not start {provider}")
    name = session.get_inputs()[0].name
    given = np.ascontiguousarray(image[None])
    return lambda: session.run(None, {name: given})
