"""The artifact: one file with the library, what it is, and a golden input and output.

`deploy.artifact_file` writes and reads it. Imports neither torch, onnx nor TVM.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from deploy.metadata import Metadata
from deploy.target import Target

FORMAT = "hmseg-artifact"
# What came with 2: code for GPUs; 3: logits at fewer than every 8th pixel; 4: other than RGB images
# to labels of up to 255 classes by an arg max; 5: libraries that need no machine of TVM's; 6: the
# golden image in planes. All are read, but for the code of libraries before 5.
FORMAT_VERSION = 6
SUFFIX = ".hmseg"
TVM = "tvm"  # the template of kernels that TVM's own lowering made
# The golden logits are kept at every 8th pixel, of large images at every 16th and so on: more would
# outweigh the code.
LEAST_STRIDE, _MOST_SAMPLES = 8, 20_000
_ROUGH_BITS, _FLOAT32_BITS = 11, 24  # of a number, the leading one counted


class Code(Protocol):
    """What a backend compiles a network to, as an artifact holds it."""

    @property
    def compressed(self) -> bool:
        """Whether its files are deflated in an artifact."""

    def members(self) -> dict[str, bytes]:
        """Files of the artifact by name."""


class StoredCode(Code, Protocol):
    """Code that an artifact's file holds, by files of its own."""

    @staticmethod
    def is_member(name: str) -> bool:
        """Whether an artifact's file is this code's."""

    @staticmethod
    def from_members(members: Mapping[str, bytes]) -> "StoredCode":
        """The inverse of `members`; raises an error where they are not sound."""

    def check_ends(self, metadata: Metadata) -> None:
        """Raise UserError unless it takes and gives what a network with this metadata does, as far
        as that can be said without running it."""


@dataclass(frozen=True)
class NoCode:
    """Of a draft."""

    compressed: ClassVar[bool] = True

    def members(self) -> dict[str, bytes]:
        """None."""
        return {}


@dataclass(frozen=True)
class Golden:
    """An input and what the reference (onnxruntime) made of it.

    image uint8 (H, W, C); labels (H, W), uint8 or above 255 classes uint16, or the masks uint8
    (K, H, W) of a network that finds those; logits float32 (K, ceil(H/S), ceil(W/S)), the class
    scores at every S-th pixel of every S-th row, S being the `stride`.
    """

    image: NDArray[np.uint8]
    labels: NDArray[Any]
    logits: NDArray[np.float32]
    stride: int = LEAST_STRIDE

    @staticmethod
    def sampled(
        image: NDArray[np.uint8],
        labels: NDArray[Any],
        logits: NDArray[np.float32],
        *,
        rough: bool = False,
    ) -> "Golden":
        """Of the whole planes of logits, (K, H, W), what is kept; `rough` is whether their first 11
        bits will do, which take half the space: rounding moves maps in low precision by more."""
        stride = golden_stride(*labels.shape[-2:])
        kept = logits[:, ::stride, ::stride].copy()
        return Golden(image, labels, _rounded(kept) if rough else kept, stride)


def _rounded(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The nearest numbers of `_ROUGH_BITS` bits."""
    cut = _FLOAT32_BITS - _ROUGH_BITS
    bits = values.view(np.uint32) + np.uint32(1 << (cut - 1))
    return (bits >> cut << cut).view(np.float32)


def golden_stride(height: int, width: int) -> int:
    """At every which pixel of every which row an image's golden logits are kept."""
    stride = LEAST_STRIDE
    while math.prod(coarse_size(height, width, stride)) > _MOST_SAMPLES:
        stride *= 2
    return stride


def coarse_size(height: int, width: int, stride: int) -> tuple[int, int]:
    """Height and width of every `stride`-th pixel of every `stride`-th row."""
    return -(-height // stride), -(-width // stride)


@dataclass(frozen=True)
class KernelInfo:
    """One kernel of a library: what it computes and what it must at least do for it.

    `template` is the kind of its operation (of a conversion, its direction), or ``tvm`` for what
    TVM's own lowering made, whose `spec` is a key of its loops; `macs` are those of the real
    channels (0 where the counting rule has none); `bytes` are those of its arguments, each read or
    written once; `tuned` says that its schedule was measured, not made by the rule.
    """

    name: str
    template: str
    spec: str
    macs: int
    bytes: int
    tuned: bool = False


@dataclass(frozen=True)
class Artifact:
    """Everything in one artifact file."""

    code: Code
    target: Target
    metadata: Metadata
    golden: Golden
    parity: dict[str, Any]
    versions: dict[str, str]
    created: str  # ISO 8601, UTC
    kernels: tuple[KernelInfo, ...]
    threads: int  # that the kernels' work is cut for; it runs with any number
    # What of a frame is timed one by one, in order: of a CPU's the kernels that it calls, by name,
    # as the library's entry ``timed`` does; of a GPU's a table's entries, where it was made for
    # one. Empty where nothing is, as in what was made before libraries had that entry.
    calls: tuple[str, ...] = ()
    # How its precision was chosen, where that was left open (`deploy.choice.Choice`).
    choice: dict[str, Any] = field(default_factory=dict)

    @property
    def golden_input(self) -> NDArray[Any]:
        """What the network takes for the golden image."""
        return self.metadata.network_input(self.golden.image)

    def manifest(self) -> dict[str, Any]:
        """The manifest without the members' hashes."""
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "created": self.created,
            "target": self.target.to_json(),
            "input": {
                "name": self.metadata.input,
                "dtype": np.dtype(self.metadata.input_dtype).name,
                "shape": [1, *self.metadata.input_shape],
            },
            "output": {
                "name": self.metadata.output,
                "dtype": np.dtype(self.metadata.output_dtype).name,
                "shape": [1, *self.metadata.output_shape],
            },
            "metadata": self.metadata.to_strings(),
            "versions": self.versions,
            "parity": self.parity,
            "threads": self.threads,
            "kernels": [asdict(kernel) for kernel in self.kernels],
            "calls": list(self.calls),
            "golden_stride": self.golden.stride,
            **({"choice": self.choice} if self.choice else {}),
        }
