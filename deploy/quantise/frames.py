"""The frames that a network is calibrated and judged on: pictures in a folder, with labels beside
them where the folder is one of a data set."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.images import images_in, read_image, resize_image
from deploy.metadata import Metadata
from hmseg.data.camvid import LABEL_MAP
from hmseg.data.classes import CAMVID
from hmseg.data.dataset import Frame, SegmentationData
from hmseg.data.image_file import image_size
from lut.errors import UserError

_KEPT = 1 << 28  # bytes of frames that are decoded once


@dataclass(frozen=True)
class Frames:
    """Pictures, as a network of `metadata` takes them: resized as for `run`.

    `data` are the same with their masks, where there are any. `notes` are what the user should
    know.
    """

    paths: tuple[Path, ...]
    metadata: Metadata
    data: SegmentationData | None = None
    notes: tuple[str, ...] = ()
    _decoded: dict[int, NDArray[np.uint8]] = field(default_factory=dict, repr=False, compare=False)

    @staticmethod
    def of_image(image: NDArray[np.uint8], metadata: Metadata) -> "Frames":
        """One image of the network's size, uint8 (H, W, C), that lies in no file."""
        return Frames((Path("image"),), metadata, _decoded={0: image})

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def labelled(self) -> bool:
        """Whether there is a mask for every frame."""
        return self.data is not None

    def given(self, index: int) -> NDArray[Any]:
        """What the network takes for a frame: uint8 (H, W, C), or normalised float32 (C, H, W).
        Raises UserError naming a file that cannot be read."""
        image = self._decoded.get(index)
        if image is None:
            whole = read_image(self.paths[index], self.metadata.channels)
            image = resize_image(whole, self.metadata.resolution)
            if len(self) * image.nbytes <= _KEPT:
                self._decoded[index] = image
        return self.metadata.network_input(image)

    def truth(self, index: int) -> NDArray[np.uint8]:
        """The labels (h, w) of a frame at its own size, 255 where none count. Raises UserError
        naming a mask that does not fit."""
        assert self.data is not None
        return self.data.load_labels(index)

    def spread(self, most: int) -> list[int]:
        """At most so many of the frames, evenly taken."""
        return evenly(len(self), most)

    @cached_property
    def other_sizes(self) -> int:
        """Frames that are not of the network's size. Raises UserError as `given`."""
        wanted = tuple(self.metadata.resolution)
        return sum(image_size(path) != wanted for path in self.paths)


def open_frames(folder: Path, metadata: Metadata, most: int) -> Frames:
    """The frames of a folder, at most `most`, evenly taken in the order of their names.

    In CamVid's layout, where a folder ``train`` has its masks in ``trainannot`` beside it, they are
    labelled if the network's classes are CamVid's. Raises UserError for a folder without pictures
    and a file that is none.
    """
    if most < 1:
        raise UserError(f"{most} frames: at least 1 is needed, some 100 are usual")
    found = images_in(folder)
    paths = tuple(found[index] for index in evenly(len(found), most))
    data, notes = _labels(folder, paths, metadata)
    frames = Frames(paths, metadata, data)
    if len(paths) == 1:
        notes.insert(0, "one frame alone: ranges that others have are not known; 100 are usual")
    if other := frames.other_sizes:
        many = f"{other} of {len(paths)} frames are" if len(paths) > 1 else "the frame is"
        notes.append(f"{many} resized to {metadata.resolution}, as run does")
    return Frames(paths, metadata, data, tuple(notes))


def evenly(count: int, most: int) -> list[int]:
    """At most `most` of the numbers below `count`: the first, the last, and others between."""
    if count <= most:
        return list(range(count))
    if most == 1:
        return [count // 2]
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]


def _labels(
    folder: Path, paths: Sequence[Path], metadata: Metadata
) -> tuple[SegmentationData | None, list[str]]:
    """The masks beside the frames, and why there are none though there is a folder of them."""
    whole = folder.resolve()
    beside = whole.parent / f"{whole.name}annot"
    if not beside.is_dir():
        return None, []
    if metadata.classes.names != CAMVID.names or metadata.threshold is not None:
        return None, [f"{beside} is not used: the network's classes are not CamVid's"]
    masks = [beside / f"{path.stem}.png" for path in paths]
    missing = [mask for mask in masks if not mask.is_file()]
    if missing:
        return None, [f"{beside} is not used: it has no {missing[0].name}"]
    frames = tuple(Frame(path, mask) for path, mask in zip(paths, masks, strict=True))
    return SegmentationData(CAMVID, whole.name, frames, LABEL_MAP, metadata.channels), []
