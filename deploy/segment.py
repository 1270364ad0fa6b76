"""One image file through a network: read, resize, segment, resize back, write."""

from collections import Counter
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deploy.images import read_image, resize_image, resize_labels, save_labels, save_overlay
from deploy.resolution import Resolution
from deploy.runtime import Network


def segment_image(
    network: Network, image: NDArray[np.uint8], labels_path: Path, overlay_path: Path | None
) -> None:
    """Write the labels of an image uint8 (H, W, 3) and, where there is a path for it, an overlay.

    The image is resized to the network's size, the labels back to the image's by nearest.
    """
    resized = resize_image(image, network.metadata.resolution)
    result = network(network.metadata.network_input(resized))
    if network.metadata.output == "logits":
        result = result.argmax(0).astype(np.uint8)
    labels, classes = resize_labels(result, Resolution(*image.shape[:2])), network.metadata.classes
    save_labels(labels, classes, labels_path)
    if overlay_path:
        save_overlay(image, labels, classes, overlay_path)


def segment_file(
    network: Network, path: Path, folder: Path, name: str, *, overlay: bool = True
) -> dict[str, str]:
    """`segment_image` of a file: ``name-labels.png`` and ``name-overlay.png`` in `folder`; returns
    their paths."""
    kinds = ("labels", "overlay") if overlay else ("labels",)
    paths = {kind: folder / f"{name}-{kind}.png" for kind in kinds}
    segment_image(network, read_image(path), paths["labels"], paths.get("overlay"))
    return {kind: str(path) for kind, path in paths.items()}


def output_names(paths: Sequence[Path]) -> list[str]:
    """A name for each image's results: its stem, with the suffix where two stems are equal, and a
    number where whole names are."""
    stems = Counter(path.stem for path in paths)
    names = [path.stem if stems[path.stem] == 1 else path.name.replace(".", "-") for path in paths]
    counts = Counter(names)
    taken = {name for name in names if counts[name] == 1}
    unique = []
    for name in names:
        if counts[name] > 1:
            name = next(f"{name}-{i}" for i in count(1) if f"{name}-{i}" not in taken)
            taken.add(name)
        unique.append(name)
    return unique
