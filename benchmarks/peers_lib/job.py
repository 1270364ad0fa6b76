"""What is timed: a job on a network at a size, with a number of threads."""

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from deploy.metadata import InputKind, OutputKind
from deploy.precision import FP32
from deploy.resolution import Resolution, parse_resolution
from deploy.street import draw_street
from hmseg.data.normalise import planes

Job = Literal["labels", "logits", "float-logits"]
LabelEnd = Literal["graph", "numpy", "torch"]
Exporter = Literal["", "dynamo", "legacy"]
JOBS: dict[str, str] = {
    "labels": "uint8 image (H, W, 3) to label map (H, W)",
    "logits": "uint8 image (H, W, 3) to float32 logits (K, H, W) at full resolution",
    "float-logits": "normalised float32 (3, H, W) to float32 logits (K, H, W) at full resolution",
}


@dataclass(frozen=True)
class Config:
    """One row of the table.

    Without an `exporter` the network is one of the zoo, and its graph made as `compile` makes it;
    with one it is of `hmseg.families`, and the graph made from the file that it writes. `precision`
    is that of our own side.
    """

    model: str
    resolution: str  # HxW
    threads: int
    job: Job
    exporter: Exporter = ""
    precision: str = FP32.name

    def __str__(self) -> str:
        by = f" ({self.exporter})" if self.exporter else ""
        return f"{self.named}{by} {self.resolution} {self.threads} threads {self.job}"

    @property
    def named(self) -> str:
        """The network, and its precision where that is another than float32."""
        return self.model if self.precision == FP32.name else f"{self.model}, {self.precision}"

    @property
    def size(self) -> Resolution:
        """Height and width in pixels."""
        return parse_resolution(self.resolution)

    @property
    def input(self) -> InputKind:
        """What the graph takes."""
        return "tensor" if self.job == "float-logits" else "image"

    @property
    def output(self) -> OutputKind:
        """What the graph gives."""
        return "labels" if self.job == "labels" else "logits"

    def to_json(self) -> dict[str, Any]:
        """As it stands in the results file."""
        return asdict(self)


@dataclass(frozen=True)
class Work:
    """What a side is handed: the job, the folded graph, and a folder of its own to write into; for
    a network of `hmseg.families` also the file as its user has it."""

    config: Config
    onnx: Path  # from `image` or `tensor` to `labels` or `logits`
    folder: Path
    file: Path | None = None

    def image(self) -> NDArray[np.uint8]:
        """The image that every side segments: uint8 (H, W, 3)."""
        return draw_street(self.config.size)

    def given(self) -> NDArray[Any]:
        """What a side is given for it: the image, or the normalised float32 (3, H, W)."""
        image = self.image()
        return image if self.config.input == "image" else planes(image)

    def to_json(self) -> dict[str, Any]:
        """For a worker's command line."""
        return {
            "config": self.config.to_json(),
            "onnx": str(self.onnx),
            "folder": str(self.folder),
            "file": str(self.file) if self.file else None,
        }

    @staticmethod
    def from_json(values: dict[str, Any]) -> "Work":
        """Inverse of `to_json`."""
        config, file = Config(**values["config"]), values["file"]
        paths = Path(values["onnx"]), Path(values["folder"])
        return Work(config, *paths, Path(file) if file else None)


def without_folders(text: str) -> str:
    """A text as it may stand in a results file: of paths on this machine only the file's name."""
    return re.sub(r"(?<![\w.:/])/(?:[\w.+~-]+/)+", "", text)
