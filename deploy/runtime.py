"""Load and run an artifact with numpy alone: no TVM, no torch, no onnx, no compiler.

labels = load("tiny-mrms.hmseg")(image)   # uint8 (H, W, 3) -> uint8 (H, W)
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.artifact import Artifact
from deploy.artifact_file import load_artifact
from deploy.loaders import LoadedCode, load_code
from deploy.metadata import Metadata
from lut.errors import UserError


class Network:
    """A network that runs somewhere; make one with `load`. Threads may share it.

    `loaded` is its code where it runs.
    """

    def __init__(self, artifact: Artifact, loaded: LoadedCode) -> None:
        self.artifact, self.metadata, self.loaded = artifact, artifact.metadata, loaded

    def __call__(self, given: NDArray[Any]) -> NDArray[Any]:
        """Segment one image of exactly the network's size.

        given: an image uint8 (H, W, C), grey, RGB or RGBA as `metadata.channels` says; for a
        network that was compiled with ``--input tensor`` the normalised float32 (C, H, W), which
        `metadata.network_input` makes of an image. Returns what `metadata.output` says: the labels,
        uint8 (H, W), above 255 classes uint16; for a network that was compiled with ``--output
        logits`` the class scores, float32 (K, H, W), of which `metadata.found_in` makes labels or
        masks; the masks of classes that do not exclude each other, uint8 (K, H, W) of 0 and 1.
        Raises UserError for another shape or type.
        """
        check_input(given, self.metadata)
        return self.loaded.run("main", given)

    def close(self) -> None:
        """Give back its memory, threads and code now, not when the last reference goes; calls are
        refused from then on."""
        if close := getattr(self.loaded, "close", None):
            close()

    def logits(self, given: NDArray[Any]) -> NDArray[np.float32]:
        """The class scores, float32 (K, H, W), of one image; every artifact has them."""
        check_input(given, self.metadata)
        return self.loaded.run("main" if self.metadata.output == "logits" else "logits", given)


def check_input(given: NDArray[Any], metadata: Metadata) -> None:
    """Raise UserError unless `given` is what the network takes for one image."""
    kind, shape = np.dtype(metadata.input_dtype), metadata.input_shape
    if not isinstance(given, np.ndarray) or given.dtype != kind or given.shape != shape:
        found = f"{getattr(given, 'dtype', type(given).__name__)} {np.shape(given)}"
        what, advice = "an image", "resize it"
        if metadata.input == "tensor":
            what, advice = "a tensor", "make it with network.metadata.network_input(image)"
        elif np.shape(given)[2:] != (metadata.channels,):
            advice = f"deploy.images.read_image(path, {metadata.channels}) makes such images"
        raise UserError(f"the network takes {what} {kind} {shape}, not {found}; {advice}")


def load(path: str | Path, *, threads: int | None = None) -> Network:
    """Load an artifact for this machine.

    `threads` are those of one call: by default TVM_NUM_THREADS, or the number of CPUs that the
    process may use, within its container's quota. Calls from several threads run at the same time,
    as long as there are CPUs for them. A forked child may go on using it. An artifact for a GPU has
    no threads. Raises UserError for a damaged file, one for another machine or of a newer format,
    and a TVM_NUM_THREADS that is no number.
    """
    if threads is not None and threads < 1:
        raise UserError(f"threads is {threads}; it must be at least 1")
    return _open(load_artifact(Path(path)), str(path), threads)


def open_artifact(artifact: Artifact, name: str, *, threads: int | None = None) -> Network:
    """`load` for an artifact already in memory; `name` is what errors call it."""
    return _open(artifact, name, threads)


def _open(artifact: Artifact, name: str, threads: int | None) -> Network:
    return Network(artifact, load_code(artifact, name, threads))
