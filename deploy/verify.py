"""torch, the user's file, onnxruntime and the compiled network against each other, on the same
images.

`replay_golden` needs neither torch nor onnx, so that a device can check an artifact.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from deploy.noise import Deviation
from deploy.precision import FP32, Precision
from deploy.resolution import Resolution
from deploy.runtime import Network
from hmseg.data.normalise import MEAN, STD
from lut.errors import WorkError

if TYPE_CHECKING:
    import onnx
    from torch import nn

    from deploy.graph.expected import Expectations, Expected

SEED = 0


@dataclass(frozen=True)
class Comparison:
    """One side against what is expected of it on one image.

    `max_logit_error` and `rms_error` say how far its class scores are off, `noise` and `rms_noise`
    how far float32 by itself is, `tolerance` and `rms_tolerance` what is allowed: a multiple of the
    noise (`Precision.allowed`). A label may differ only where the expected scores of the two
    classes are a tie (`Precision.tied`: lie within twice the tolerance, or closer in low
    precision): `unexplained_share` counts the others, of which there may be `unexplained_allowed`.
    `stray_share` counts labels that are not of the side's own scores either.
    """

    side: str
    image: str
    max_logit_error: float
    tolerance: float
    differing_share: float
    unexplained_share: float
    noise: float = 0.0
    rms_error: float = 0.0
    rms_tolerance: float = 0.0
    rms_noise: float = 0.0
    unexplained_allowed: float = 0.0
    stray_share: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether the side may be believed; NaN and infinity never pass."""
        error = Deviation(self.rms_error, self.max_logit_error)
        near = error.within(Deviation(self.rms_tolerance, self.tolerance))
        return near and self.unexplained_share <= self.unexplained_allowed and self.stray_share == 0

    @property
    def share_of_tolerance(self) -> float:
        """The worse of both errors, of what is allowed; infinite for NaN."""
        pairs = (self.max_logit_error, self.tolerance), (self.rms_error, self.rms_tolerance)
        shares = [0.0 if error == 0 else error / max(allowed, 5e-324) for error, allowed in pairs]
        return max(math.inf if share != share else share for share in shares)

    def to_json(self) -> dict[str, Any]:
        """For the manifest and --json."""
        return asdict(self) | {"passed": self.passed}


def deviation_of(
    side: str, image: str, scores: NDArray[Any], expected: "Expected", precision: Precision = FP32
) -> Comparison:
    """Compare scores, or any floats, of one shape."""
    wanted, noise = expected.scores, expected.noise
    allowed = precision.allowed(noise, Deviation.size(wanted).largest)
    error = Deviation.between(scores, wanted)
    return Comparison(
        side, image, error.largest, allowed.largest, 0.0, 0.0, noise.largest, error.rms,
        allowed.rms, noise.rms, precision.most_unexplained,
    )  # fmt: skip


def compare(
    side: str,
    image: str,
    expected: "Expected",
    found: NDArray[Any],
    logits: NDArray[Any],
    precision: Precision = FP32,
    threshold: float | None = None,
) -> Comparison:
    """Compare class scores (K, H, W), and labels (H, W) or masks (K, H, W), with those expected.

    With a `threshold` a class is there where its score is above it; else the largest score's is.
    """
    comparison = deviation_of(side, image, logits, expected, precision)
    off = _labels_off if threshold is None else partial(_masks_off, threshold)
    peak = Deviation.size(expected.scores).largest
    differing, unexplained = off(found, expected.scores, precision.tied(expected.noise, peak))
    stray = 0.0
    if precision.most_unexplained:  # labels may differ, but what decides them is float32
        stray = off(found, logits, 2 * FP32.relative_tolerance * peak)[1]
    return replace(
        comparison, differing_share=differing, unexplained_share=unexplained, stray_share=stray
    )


def _labels_off(labels: NDArray[Any], scores: NDArray[Any], tie: float) -> tuple[float, float]:
    """The shares of the pixels whose label is not the class of the largest score (the lowest of
    equal ones), and whose score is not within `tie` of it either."""
    wanted = scores.argmax(0)
    rows, columns = np.nonzero(labels != wanted)
    known = labels[rows, columns] < len(scores)
    chosen = np.minimum(labels[rows, columns], len(scores) - 1)
    with np.errstate(invalid="ignore"):
        margin = scores[wanted[rows, columns], rows, columns] - scores[chosen, rows, columns]
    unexplained = int((~known | ~(margin <= tie)).sum())
    return len(rows) / labels.size, unexplained / labels.size


def _masks_off(
    threshold: float, masks: NDArray[Any], scores: NDArray[Any], tie: float
) -> tuple[float, float]:
    """The shares of the pixels on the other side of the threshold, and of those of them whose score
    is not within half of `tie` of it."""
    differing = masks.reshape(scores.shape) != (scores > threshold)
    with np.errstate(invalid="ignore"):
        near = np.abs(scores - threshold) <= tie / 2
    return float(differing.mean()), float((differing & ~near).mean())


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
    network: Network, expectations: "Expectations", images: Mapping[str, NDArray[np.uint8]]
) -> list[Comparison]:
    """The compiled network against what is expected of the graph it was compiled from."""
    precision = network.artifact.target.precision
    comparisons = []
    for name, image in images.items():
        given = network.metadata.network_input(image)
        logits = network.logits(given)
        metadata = network.metadata
        found = metadata.found_in(logits) if metadata.output == "logits" else network(given)
        rest = found, logits, precision, metadata.threshold
        comparison = compare("tvm", name, expectations[name], *rest)
        if not comparison.passed and expectations.look_closer(name):
            comparison = compare("tvm", name, expectations[name], *rest)
        comparisons.append(comparison)
    return comparisons


def verify_torch(
    model: "nn.Module", graph: "onnx.ModelProto", images: Mapping[str, NDArray[np.uint8]]
) -> list[Comparison]:
    """The PyTorch network, batch norm unfolded, against what is expected of its exported graph; its
    resizes take the graph's coordinates, as the compiled network's do."""
    import torch

    from deploy.graph.ends import with_logits_output
    from deploy.graph.expected import Expectations
    from deploy.graph.torch_resize import GraphCoordinates

    expectations = Expectations(with_logits_output(graph), images)
    model = model.eval()
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    comparisons = []
    for name, image in images.items():
        tensor = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255
        with torch.no_grad(), GraphCoordinates():
            logits = model((tensor - mean) / std)[0].numpy()
        comparisons.append(compare("torch", name, expectations[name], logits.argmax(0), logits))
    return comparisons


def replay_golden(network: Network) -> Comparison:
    """The artifact's own golden input, where it is loaded, against its golden output.

    Logits are compared at the pixels that were kept, by the noise that was measured when it was
    made (by the largest score in artifacts from before it was), labels at every pixel; a label that
    differs where no golden logit says by how much counts as unexplained, unless it is one pixel in
    10,000 (`Precision.label_tolerance`). Where labels are judged by themselves, those at the pixels
    that were kept are, as `compare` does, and all by the network's own scores.
    """
    golden, given = network.artifact.golden, network.artifact.golden_input
    logits = network.logits(given)
    metadata = network.metadata
    labels = metadata.found_in(logits) if metadata.output == "logits" else network(given)
    sampled = logits[:, :: golden.stride, :: golden.stride]
    differing = float((labels != golden.labels).mean())
    precision = network.artifact.target.precision
    kept = network.artifact.parity.get("noise")
    noise = Deviation(**kept) if kept else None
    peak = Deviation.size(golden.logits).largest
    allowed = precision.allowed(noise, peak)
    unexplained, stray = 0.0 if differing <= precision.label_tolerance else differing, 0.0
    if precision.most_unexplained:
        threshold = metadata.threshold
        off = _labels_off if threshold is None else partial(_masks_off, threshold)
        seen = labels[..., :: golden.stride, :: golden.stride]
        unexplained = off(seen, golden.logits, precision.tied(noise, peak))[1]
        stray = off(labels, logits, 2 * FP32.relative_tolerance * peak)[1]
    error = Deviation.between(sampled, golden.logits)
    shown = noise or Deviation(0, 0)
    return Comparison(
        side="tvm",
        image="golden",
        max_logit_error=error.largest,
        tolerance=allowed.largest,
        differing_share=differing,
        unexplained_share=unexplained,
        noise=shown.largest,
        rms_error=error.rms,
        rms_tolerance=allowed.rms,
        rms_noise=shown.rms,
        unexplained_allowed=precision.most_unexplained,
        stray_share=stray,
    )


def require(comparisons: Sequence[Comparison]) -> None:
    """Raise WorkError naming the worst comparison unless all passed."""
    failed = [c for c in comparisons if not c.passed]
    if failed:
        worst = max(failed, key=lambda c: c.share_of_tolerance)
        if worst.stray_share:
            raise WorkError(
                f"{worst.side} gives labels on the {worst.image} image that are not those of its "
                f"own scores, in {worst.stray_share:.3%} of the pixels"
            )
        if worst.share_of_tolerance <= 1 and worst.unexplained_allowed:
            raise WorkError(
                f"{worst.side} does not match onnxruntime on the {worst.image} image: "
                f"{worst.unexplained_share:.3%} of the labels differ that are no tie (allowed "
                f"{worst.unexplained_allowed:.3%}), {worst.differing_share:.3%} of all"
            )
        by_rms = worst.rms_error > worst.rms_tolerance
        kind, error, allowed = (
            ("root mean square ", worst.rms_error, worst.rms_tolerance)
            if by_rms
            else ("", worst.max_logit_error, worst.tolerance)
        )
        raise WorkError(
            f"{worst.side} does not match onnxruntime on the {worst.image} image: {kind}logit "
            f"error {error:.3g} (allowed {allowed:.3g}), {worst.differing_share:.3%} of the pixels "
            "differ"
        )
