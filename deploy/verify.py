"""torch, onnxruntime and the compiled network against each other, on the same images.

`replay_golden` needs neither torch nor onnx, so that a device can check an artifact.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deploy.precision import FP32, Precision
from deploy.resolution import Resolution
from deploy.runtime import Network
from hmseg.data.normalise import MEAN, STD
from lut.errors import WorkError

if TYPE_CHECKING:
    import onnx
    from torch import nn

SEED = 0


@dataclass(frozen=True)
class Comparison:
    """One side against onnxruntime on one image.

    `max_logit_error` is the largest absolute difference of a class score; `tolerance` what it may
    be: the precision's `relative_tolerance` of the largest score, or of 1. A label may differ only
    where the reference's scores of the two classes lie within twice the tolerance:
    `unexplained_share` counts the others.
    """

    side: str
    image: str
    max_logit_error: float
    tolerance: float
    differing_share: float
    unexplained_share: float

    @property
    def passed(self) -> bool:
        """Whether the side may be believed; NaN and infinity never pass."""
        near = self.max_logit_error <= self.tolerance < math.inf
        return near and self.unexplained_share == 0

    def to_json(self) -> dict[str, Any]:
        """For the manifest and --json."""
        return asdict(self) | {"passed": self.passed}


def compare(
    side: str,
    image: str,
    reference: tuple[NDArray[Any], NDArray[np.float32]],
    labels: NDArray[Any],
    logits: NDArray[np.float32],
    precision: Precision = FP32,
    threshold: float | None = None,
) -> Comparison:
    """Compare labels (H, W), or masks (K, H, W), and logits (K, H, W) with the reference's."""
    reference_labels, reference_logits = reference
    peak = float(np.abs(reference_logits).max())
    tolerance = precision.relative_tolerance * max(1.0, peak)
    with np.errstate(invalid="ignore"):  # infinity minus infinity: NaN, which never passes
        error = np.abs(logits.astype(np.float64) - reference_logits)
    differing = labels != reference_labels
    unexplained = 0
    if threshold is not None:
        near = np.abs(reference_logits - threshold) <= tolerance
        unexplained = int((differing.reshape(near.shape) & ~near).sum())
    elif differing.any():
        rows, columns = np.nonzero(differing)
        inside = labels[rows, columns] < len(reference_logits)
        chosen = np.minimum(labels[rows, columns], len(reference_logits) - 1)
        margin = (
            reference_logits[reference_labels[rows, columns], rows, columns]
            - reference_logits[chosen, rows, columns]
        )
        unexplained = int((~inside | ~(margin <= 2 * tolerance)).sum())
    return Comparison(
        side, image, float(error.max()), tolerance, float(differing.mean()),
        unexplained / labels.size,
    )  # fmt: skip


def probe_images(resolution: Resolution, golden: NDArray[np.uint8]) -> dict[str, NDArray[np.uint8]]:
    """The golden image, noise, a smooth random image, black and white: uint8 (H, W, C) each."""
    rng = np.random.default_rng(SEED)
    shape, channels = golden.shape, golden.shape[2]
    coarse_shape = (resolution.height // 16 + 1, resolution.width // 16 + 1, channels)
    coarse = rng.integers(0, 256, coarse_shape)
    smooth = coarse.repeat(16, axis=0).repeat(16, axis=1)[: resolution.height, : resolution.width]
    return {
        "golden": golden,
        "noise": rng.integers(0, 256, shape, dtype=np.uint8),
        "blocks": smooth.astype(np.uint8),
        "black": np.zeros(shape, np.uint8),
        "white": np.full(shape, 255, np.uint8),
    }


def verify_network(
    network: Network, model: "onnx.ModelProto", images: Mapping[str, NDArray[np.uint8]]
) -> list[Comparison]:
    """The compiled network against onnxruntime on the graph it was compiled from."""
    from deploy.graph.reference import Reference

    reference = Reference(model)
    precision = network.artifact.target.precision
    comparisons = []
    for name, image in images.items():
        given = network.metadata.network_input(image)
        logits = network.logits(given)
        metadata = network.metadata
        labels = metadata.found_in(logits) if metadata.output == "logits" else network(given)
        comparisons.append(
            compare("tvm", name, reference(given), labels, logits, precision, metadata.threshold)
        )
    return comparisons


def verify_torch(
    model: "nn.Module", graph: "onnx.ModelProto", images: Mapping[str, NDArray[np.uint8]]
) -> list[Comparison]:
    """The PyTorch network, batch norm unfolded, against onnxruntime on its exported graph."""
    import torch

    from deploy.graph.reference import Reference

    reference = Reference(graph)
    model = model.eval()
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    comparisons = []
    for name, image in images.items():
        tensor = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255
        with torch.no_grad():
            logits = model((tensor - mean) / std)[0].numpy()
        labels = logits.argmax(0).astype(np.uint8)
        comparisons.append(compare("torch", name, reference(image), labels, logits))
    return comparisons


def replay_golden(network: Network) -> Comparison:
    """The artifact's own golden input, where it is loaded, against its golden output.

    Logits are compared at the pixels that were kept, labels at every pixel; a label that differs
    where no golden logit says by how much counts as unexplained, unless it is one pixel in 10,000
    (in 100 at fp16).
    """
    golden, given = network.artifact.golden, network.artifact.golden_input
    logits = network.logits(given)
    metadata = network.metadata
    labels = metadata.found_in(logits) if metadata.output == "logits" else network(given)
    peak = float(np.abs(golden.logits).max())
    sampled = logits[:, :: golden.stride, :: golden.stride]
    differing = float((labels != golden.labels).mean())
    precision = network.artifact.target.precision
    return Comparison(
        side="tvm",
        image="golden",
        max_logit_error=float(np.abs(sampled.astype(np.float64) - golden.logits).max()),
        tolerance=precision.relative_tolerance * max(1.0, peak),
        differing_share=differing,
        unexplained_share=0.0 if differing <= precision.label_tolerance else differing,
    )


def require(comparisons: Sequence[Comparison]) -> None:
    """Raise WorkError naming the worst comparison unless all passed."""
    failed = [c for c in comparisons if not c.passed]
    if failed:
        worst = max(failed, key=lambda c: (np.isnan(c.max_logit_error), c.max_logit_error))
        raise WorkError(
            f"{worst.side} does not match onnxruntime on the {worst.image} image: logit error "
            f"{worst.max_logit_error:.3g} (allowed {worst.tolerance:.3g}), "
            f"{worst.differing_share:.3%} of the pixels differ"
        )
