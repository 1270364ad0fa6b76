"""What a model file says about itself: carried by the ONNX file and by the artifact.

Imports neither torch, onnx nor TVM.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from deploy.resolution import Resolution, parse_resolution
from hmseg.data.classes import ClassSet
from lut.errors import UserError
from lut.json_text import parse_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

InputKind = Literal["image", "tensor"]
INPUT_KINDS: tuple[InputKind, ...] = ("image", "tensor")
OutputKind = Literal["labels", "logits", "masks"]
OUTPUT_KINDS: tuple[OutputKind, ...] = ("labels", "logits", "masks")
Values = tuple[float, ...]  # one for each channel
CHANNELS = (1, 3, 4)  # of an image: grey, RGB, RGBA
MOST_CLASSES = 65535  # labels are uint16 at most
UNKNOWN_LICENSE = "unknown"  # of a user's file: nobody told us
_LEAST_STD = 1e-6  # of an image in 0..1: scores of what is divided by less are no numbers
_MOST_SMALL = 255  # of uint8


@dataclass(frozen=True)
class Metadata:
    """Name, classes and ends of one exported network."""

    model: str
    classes: ClassSet
    resolution: Resolution
    output: OutputKind
    # Of the image scaled to 0..1; None where a user's file has its own image end.
    mean: Values | None
    std: Values | None
    license: str
    version: str  # of hmseg
    input: InputKind = "image"
    channels: int = 3  # of the image: 1, 3 or 4
    # Class scores that the network has: None for one a class, which exclude each other unless
    # there is a threshold; 1 where two classes are told apart by it.
    scores: Literal[1] | None = None
    threshold: float | None = None  # where a score is above it, its class is there

    @property
    def file_name(self) -> str:
        """A name for files of this network, without a suffix.

        The model's name may come from a user's file: what could lead out of the folder is replaced.
        """
        safe = re.sub(r"[^\w.+-]+", "_", self.model).strip("._") or "network"
        return f"{safe[:50]}-{self.resolution}"

    @property
    def is_users(self) -> bool:
        """Whether it is of a user's file, whose name may be a network's of the zoo."""
        return self.license == UNKNOWN_LICENSE

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Of what the network takes, without the batch axis."""
        height, width = self.resolution
        image = self.input == "image"
        return (height, width, self.channels) if image else (self.channels, height, width)

    @property
    def input_dtype(self) -> "type[np.uint8 | np.float32]":
        """Of what the network takes."""
        import numpy as np

        return np.uint8 if self.input == "image" else np.float32

    @property
    def num_scores(self) -> int:
        """Planes of class scores."""
        return self.scores or len(self.classes)

    @property
    def finds_masks(self) -> bool:
        """Whether classes do not exclude each other, so that each has a mask of its own."""
        return self.output == "masks" or (self.threshold is not None and self.scores is None)

    @property
    def found_shape(self) -> tuple[int, ...]:
        """Of what `found_in` gives: labels (H, W) or masks (K, H, W)."""
        return (self.num_scores, *self.resolution) if self.finds_masks else self.resolution

    @property
    def found_dtype(self) -> "type[np.uint8 | np.uint16]":
        """Of labels and masks."""
        import numpy as np

        small = self.finds_masks or len(self.classes) <= _MOST_SMALL
        return np.uint8 if small else np.uint16

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Of what the network gives, without the batch axis."""
        logits = self.output == "logits"
        return (self.num_scores, *self.resolution) if logits else self.found_shape

    @property
    def output_dtype(self) -> "type[np.uint8 | np.uint16 | np.float32]":
        """Of what the network gives."""
        import numpy as np

        return np.float32 if self.output == "logits" else self.found_dtype

    def found_in(self, scores: "NDArray[Any]") -> "NDArray[Any]":
        """What the network finds, by its class scores (K, h, w): labels (h, w), uint8 or above 255
        classes uint16, the lowest among equal scores; or masks uint8 (K, h, w) of 0 and 1."""
        if self.threshold is None:
            labels: NDArray[Any] = scores.argmax(0).astype(self.found_dtype)
            return labels
        masks: NDArray[Any] = (scores > self.threshold).astype(self.found_dtype)
        return masks if self.finds_masks else masks.reshape(masks.shape[1:])

    def network_input(self, image: "NDArray[np.uint8]") -> "NDArray[Any]":
        """What the network takes for an image uint8 (H, W, C): the image, or, for the input
        ``tensor``, the normalised float32 (C, H, W)."""
        if self.input == "image":
            return image
        from hmseg.data.normalise import planes

        assert self.mean
        assert self.std
        return planes(image, self.mean, self.std)

    def to_strings(self) -> dict[str, str]:
        """The form of ONNX's metadata_props; values that are no strings are JSON."""
        return {
            "model": self.model,
            "classes": self.classes.name,
            "names": json.dumps(self.classes.names),
            "palette": json.dumps(self.classes.palette),
            "resolution": str(self.resolution),
            "input": self.input,
            "output": self.output,
            "mean": json.dumps(self.mean),
            "std": json.dumps(self.std),
            "license": self.license,
            "version": self.version,
            "channels": str(self.channels),
            "scores": json.dumps(self.scores),
            "threshold": json.dumps(self.threshold),
        }

    @staticmethod
    def from_strings(strings: Mapping[str, Any]) -> "Metadata":
        """Inverse of `to_strings`; raises UserError naming a missing or malformed field."""
        try:
            names = tuple(str(name) for name in parse_json(strings["names"]))
            palette = tuple(_colour(colour) for colour in parse_json(strings["palette"]))
            texts = {name: strings[name] for name in ("model", "classes", "license", "version")}
            if not all(isinstance(text, str) for text in texts.values()):
                raise UserError("metadata: model, classes, license and version must be texts")
            output = strings["output"]
            if output not in OUTPUT_KINDS:
                raise UserError(f"metadata: unknown output {output!r}")
            kind = strings.get("input", "image")  # files from before there was a choice
            if kind not in INPUT_KINDS:
                raise UserError(f"metadata: unknown input {kind!r}")
            # From here on fields that files from before there was a choice do not have.
            channels = _channels(strings.get("channels", "3"))
            mean, std = (_values(parse_json(strings[name]), channels) for name in ("mean", "std"))
            scores = parse_json(strings.get("scores", "null"))
            threshold = _number(parse_json(strings.get("threshold", "null")))
            _check_decision(output, len(names), scores, threshold)
            if kind == "tensor" and (mean is None or std is None):
                raise UserError("metadata: an input tensor needs mean and std")
            return Metadata(
                model=strings["model"],
                classes=ClassSet(strings["classes"], names, palette),
                resolution=parse_resolution(strings["resolution"]),
                output=output,
                mean=mean,
                std=std,
                license=strings["license"],
                version=strings["version"],
                input=kind,
                channels=channels,
                scores=scores,
                threshold=threshold,
            )
        except KeyError as error:
            raise UserError(f"metadata: the field {error} is missing") from error
        except (TypeError, ValueError, OverflowError, AttributeError, RecursionError) as error:
            if str(error).startswith("metadata"):
                raise
            raise UserError(f"metadata: malformed ({error})") from error


def _colour(value: list[int]) -> tuple[int, int, int]:
    red, green, blue = (int(channel) for channel in value)
    if not all(0 <= channel <= 255 for channel in (red, green, blue)):
        raise ValueError(f"colour {value}")
    return red, green, blue


def _channels(text: str) -> int:
    if text not in map(str, CHANNELS):
        raise ValueError(f"channels {text!r}")
    return int(text)


def _values(value: Sequence[float] | None, count: int) -> Values | None:
    if value is None:
        return None
    values = tuple(float(item) for item in value)
    if len(values) != count:
        raise ValueError(f"{len(values)} numbers for {count} channels")
    return values


def _number(value: float | None) -> float | None:
    if value is None:
        return None
    if not math.isfinite(value):
        raise ValueError(f"threshold {value}")
    return float(value)


def _check_decision(output: str, classes: int, scores: Any, threshold: float | None) -> None:  # noqa: ANN401
    if scores is not None and (type(scores) is not int or (scores, classes) != (1, 2)):
        raise ValueError(f"scores {scores!r} for {classes} classes")
    if threshold is None and (output == "masks" or scores is not None):
        raise ValueError("it needs a threshold")
    if output == "masks" and scores is not None:
        raise ValueError("masks are one a class")
    if output == "labels" and threshold is not None and scores is None:
        raise ValueError("labels of several scores have no threshold")


def check_normalisation(mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
    """Raise UserError where mean or standard deviation cannot be those of an image in 0..1."""
    for name, values in (("mean", mean), ("std", std)):
        if values and not all(map(math.isfinite, values)):
            raise UserError(f"--{name} {_listed(values)}: the numbers must be finite")
    if std and min(std) < _LEAST_STD:
        raise UserError(f"--std {_listed(std)}: the numbers must be above 0, at least {_LEAST_STD}")
    if mean and min(mean) < 0:
        raise UserError(f"--mean {_listed(mean)}: the numbers must lie in 0..1, as the image does")
    for name, values in (("mean", mean), ("std", std)):
        if values and max(values) > 1:
            said = f"--{name} {_listed(values)}: the numbers must lie in 0..1, as the image does"
            if max(values) <= _MOST_SMALL:
                right = _listed([value / 255 for value in values])
                said += f"; those of an image in 0..255 are divided by 255: --{name} {right}"
            raise UserError(said)


def check_threshold(value: float) -> None:
    """Raise UserError where nothing can be compared with a threshold."""
    if not math.isfinite(value):
        raise UserError(f"--threshold {value}: it must be a finite number")


def _listed(values: Sequence[float]) -> str:
    return ",".join(f"{value:.6g}" for value in values)
