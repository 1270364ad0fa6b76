"""What a model file says about itself: carried by the ONNX file and by the artifact.

Imports neither torch, onnx nor TVM.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from deploy.resolution import Resolution, parse_resolution
from hmseg.data.classes import ClassSet
from lut.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

InputKind = Literal["image", "tensor"]
INPUT_KINDS: tuple[InputKind, ...] = ("image", "tensor")
OutputKind = Literal["labels", "logits"]
OUTPUT_KINDS: tuple[OutputKind, ...] = ("labels", "logits")
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Metadata:
    """Name, classes and ends of one exported network."""

    model: str
    classes: ClassSet
    resolution: Resolution
    output: OutputKind
    # Of the RGB image scaled to 0..1; None where a user's file has its own image end.
    mean: Triple | None
    std: Triple | None
    license: str
    version: str  # of hmseg
    input: InputKind = "image"

    @property
    def file_name(self) -> str:
        """A name for files of this network, without a suffix.

        The model's name may come from a user's file: what could lead out of the folder is replaced.
        """
        safe = re.sub(r"[^\w.+-]+", "_", self.model).strip("._") or "network"
        return f"{safe[:50]}-{self.resolution}"

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Of what the network takes, without the batch axis."""
        height, width = self.resolution
        return (height, width, 3) if self.input == "image" else (3, height, width)

    @property
    def input_dtype(self) -> "type[np.uint8 | np.float32]":
        """Of what the network takes."""
        import numpy as np

        return np.uint8 if self.input == "image" else np.float32

    def network_input(self, image: "NDArray[np.uint8]") -> "NDArray[Any]":
        """What the network takes for an image uint8 (H, W, 3): the image, or, for the input
        ``tensor``, the normalised float32 (3, H, W)."""
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
        }

    @staticmethod
    def from_strings(strings: Mapping[str, Any]) -> "Metadata":
        """Inverse of `to_strings`; raises UserError naming a missing or malformed field."""
        try:
            names = tuple(str(name) for name in json.loads(strings["names"]))
            palette = tuple(_colour(colour) for colour in json.loads(strings["palette"]))
            texts = {name: strings[name] for name in ("model", "classes", "license", "version")}
            if not all(isinstance(text, str) for text in texts.values()):
                raise UserError("metadata: model, classes, license and version must be texts")
            output = strings["output"]
            if output not in OUTPUT_KINDS:
                raise UserError(f"metadata: unknown output {output!r}")
            kind = strings.get("input", "image")  # files from before there was a choice
            if kind not in INPUT_KINDS:
                raise UserError(f"metadata: unknown input {kind!r}")
            mean, std = _triple(json.loads(strings["mean"])), _triple(json.loads(strings["std"]))
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
            )
        except KeyError as error:
            raise UserError(f"metadata: the field {error} is missing") from error
        except (TypeError, ValueError, OverflowError, AttributeError, RecursionError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"metadata: malformed ({error})") from error


def _colour(value: list[int]) -> tuple[int, int, int]:
    red, green, blue = (int(channel) for channel in value)
    if not all(0 <= channel <= 255 for channel in (red, green, blue)):
        raise ValueError(f"colour {value}")
    return red, green, blue


def _triple(value: list[float] | None) -> Triple | None:
    if value is None:
        return None
    first, second, third = (float(item) for item in value)
    return first, second, third
