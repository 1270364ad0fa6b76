"""One image file through a network: read, resize, segment, resize back, write."""

import re
import warnings
from collections import Counter
from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.images import (
    read_image,
    resize_image,
    resize_labels,
    save_labels,
    save_mask,
    save_overlay,
)
from deploy.metadata import Metadata
from deploy.resolution import Resolution
from deploy.runtime import Network
from lut.errors import HmsegWarning

LABELS, OVERLAY = "labels", "overlay"  # the kinds of files written
_MOST_STRETCHED = 1.03  # sides are rounded to what a network takes: 360x480 to 352x480, by 1.023


def segment_file(
    network: Network, path: Path, folder: Path, name: str, *, overlay: bool = True
) -> dict[str, Any]:
    """`segment_image` of a file, as ``name-...png``."""
    channels = network.metadata.channels
    image = read_image(path, channels)
    seen = (image if channels == 3 else read_image(path)) if overlay else None
    return segment_image(network, image, seen, folder, f"{name}-")


def segment_image(
    network: Network, image: NDArray[np.uint8], seen: NDArray[np.uint8] | None, folder: Path,
    prefix: str,
) -> dict[str, Any]:  # fmt: skip
    """Write what a network finds in an image uint8 (H, W, C): ``labels.png``, or where that is
    masks ``CLASS.png`` of each class, and ``overlay.png`` over the RGB image that is to be `seen`
    there, if any; all with a prefix. Returns their paths: of ``labels`` or a list of ``masks``, and
    of ``overlay``.

    The image is resized to the network's size, what is found back to the image's by nearest.
    """
    metadata = network.metadata
    result = network(given_for(metadata, image))
    found = found_at(metadata, result, Resolution(*image.shape[:2]))
    paths = [folder / f"{prefix}{kind}.png" for kind in result_kinds(metadata)]
    written: dict[str, Any] = {}
    if metadata.finds_masks:
        written["masks"] = [str(path) for path in paths]
        for mask, path in zip(found, paths, strict=True):
            save_mask(mask, path)
    else:
        written["labels"] = str(paths[0])
        save_labels(found, metadata.classes, paths[0])
    if seen is not None:
        overlay = folder / f"{prefix}{OVERLAY}.png"
        written["overlay"] = str(overlay)
        save_overlay(seen, found, metadata.classes, overlay, background=metadata.scores == 1)
    return written


class StretchedWarning(HmsegWarning):
    """Pictures of other proportions than the network's."""


def given_for(metadata: Metadata, image: NDArray[np.uint8]) -> NDArray[Any]:
    """What the network takes for an image of any size, uint8 (H, W, C); with a StretchedWarning
    where that is of other proportions."""
    size, wanted = Resolution(*image.shape[:2]), metadata.resolution
    ratio = size.width * wanted.height / (size.height * wanted.width)
    if max(ratio, 1 / ratio) > _MOST_STRETCHED:
        # Python shows a warning of the same text once: not for every picture, or frame of a video.
        text = f"pictures of {size} are stretched to the network's {wanted}, of other proportions"
        warnings.warn(f"{text}: crop them, or use a network of theirs", StretchedWarning, 2)
    return metadata.network_input(resize_image(image, metadata.resolution))


def found_at(metadata: Metadata, result: NDArray[Any], size: Resolution) -> NDArray[Any]:
    """What is found by the network's `result`, as labels (H, W) or masks (K, H, W) of that size."""
    found = metadata.found_in(result) if metadata.output == "logits" else result
    return resize_labels(found, size)


def result_kinds(metadata: Metadata) -> list[str]:
    """What the files that hold a network's result have in their names: ``labels``, or for masks the
    class's name as far as it may stand in a file's, with a number where another is the same."""
    if not metadata.finds_masks:
        return [LABELS]
    taken, kinds = {LABELS, OVERLAY}, []
    for name in metadata.classes.names:
        safe = re.sub(r"[^\w+-]+", "_", name)[:50].strip("_") or "class"
        tries = chain([safe], (f"{safe}-{i}" for i in count(1)))
        kinds.append(next(kind for kind in tries if kind.lower() not in taken))
        taken.add(kinds[-1].lower())
    return kinds


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
