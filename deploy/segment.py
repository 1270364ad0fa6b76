"""One image file through a network: read, resize, segment, resize back, write."""

from collections import Counter
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import numpy as np

from deploy.images import read_image, resize_image, resize_labels, save_labels, save_overlay
from deploy.resolution import Resolution
from deploy.runtime import Network


def segment_file(
    network: Network, path: Path, folder: Path, name: str, *, overlay: bool = True
) -> dict[str, str]:
    """Write ``name-labels.png`` and ``name-overlay.png`` into `folder`; returns their paths.

    The image is resized to the network's size, the labels back to the image's by nearest.
    """
    image = read_image(path)
    size = Resolution(*image.shape[:2])
    resized = resize_image(image, network.metadata.resolution)
    result = network(network.metadata.network_input(resized))
    if network.metadata.output == "logits":
        result = result.argmax(0).astype(np.uint8)
    labels = resize_labels(result, size)
    classes = network.metadata.classes
    written = {"labels": str(folder / f"{name}-labels.png")}
    save_labels(labels, classes, folder / f"{name}-labels.png")
    if overlay:
        written["overlay"] = str(folder / f"{name}-overlay.png")
        save_overlay(image, labels, classes, folder / f"{name}-overlay.png")
    return written


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
