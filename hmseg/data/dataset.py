"""What all data sets share: pairs of an image and a mask, checked and read as uint8 arrays."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hmseg.data.classes import ClassSet
from lut.errors import UserError

Array = NDArray[np.uint8]
VOID = 255  # label of pixels that count nowhere


@dataclass(frozen=True)
class Frame:
    """One image file and its mask file; the mask is None where a split has no labels."""

    image: Path
    mask: Path | None

    @property
    def name(self) -> str:
        """The image's file name without its suffix."""
        return self.image.stem


@dataclass(frozen=True)
class SegmentationData:
    """One split of a data set.

    `label_map[v]` is the class of mask value v, 255 for void; values beyond it are an error.
    Iterate over the indices with `load`, which returns (image uint8 (H, W, 3) RGB,
    labels uint8 (H, W)).
    """

    classes: ClassSet
    split: str
    frames: tuple[Frame, ...]
    label_map: tuple[int, ...]
    unknown: frozenset[int] = frozenset()

    def __len__(self) -> int:
        return len(self.frames)

    @cached_property
    def _table(self) -> NDArray[np.int16]:
        table = np.full(256, -1, dtype=np.int16)
        table[: len(self.label_map)] = self.label_map
        table[list(self.unknown)] = -1
        return table

    @property
    def labelled(self) -> bool:
        """Whether every frame has a mask."""
        return all(frame.mask is not None for frame in self.frames)

    def load_image(self, index: int) -> Array:
        """RGB uint8 (H, W, 3); raises UserError naming a file that cannot be read."""
        return np.asarray(_open(self.frames[index].image, "RGB"))

    def load(self, index: int) -> tuple[Array, Array]:
        """Image and labels of one frame.

        Raises UserError naming the file: no mask, unreadable, another size than the image, or a
        value that is no label of this data set.
        """
        frame = self.frames[index]
        if frame.mask is None:
            raise UserError(f"{frame.image}: the {self.split} split has no labels")
        image = self.load_image(index)
        mask = np.asarray(_open(frame.mask, None))
        if mask.ndim != 2 or mask.dtype != np.uint8:
            raise UserError(f"{frame.mask}: expected a mask of one 8-bit channel")
        if mask.shape != image.shape[:2]:
            raise UserError(
                f"{frame.mask}: the mask is {mask.shape[0]}x{mask.shape[1]}, "
                f"its image {image.shape[0]}x{image.shape[1]}"
            )
        labels = self._table[mask]
        if labels.min() < 0:
            unknown = sorted(set(mask[labels < 0].tolist()))
            raise UserError(
                f"{frame.mask}: unknown label ids {', '.join(map(str, unknown[:5]))}; "
                f"is this a {self.classes.name} mask?"
            )
        return image, labels.astype(np.uint8)


class InMemory:
    """A split decoded once and kept as uint8; also checks every file before training starts."""

    def __init__(self, data: SegmentationData) -> None:
        self.classes, self.split, self.frames = data.classes, data.split, data.frames
        self._samples = [data.load(index) for index in range(len(data))]

    def __len__(self) -> int:
        return len(self._samples)

    def load(self, index: int) -> tuple[Array, Array]:
        """Image (H, W, 3) and labels (H, W), uint8; not to be written to."""
        return self._samples[index]


def pair_folders(images: Path, masks: Path, what: str) -> tuple[Frame, ...]:
    """Frames of two folders that use the same file names, sorted by name.

    Raises UserError naming the folder or file that is missing on either side.
    """
    image_paths, mask_paths = list_files(images, ".png", what), list_files(masks, ".png", what)
    return pair(image_paths, {path.name: path for path in mask_paths}, masks)


def pair(images: Sequence[Path], masks: dict[str, Path], folder: Path) -> tuple[Frame, ...]:
    """Match images to masks by name; raises UserError for one without the other."""
    for image in images:
        if image.name not in masks:
            raise UserError(f"{image}: no mask {folder / image.name}; is the copy complete?")
    for name in sorted(masks.keys() - {image.name for image in images}):
        raise UserError(f"{masks[name]}: no image of this name; is the copy complete?")
    return tuple(Frame(image, masks[image.name]) for image in images)


def list_files(folder: Path, suffix: str, what: str) -> list[Path]:
    """The files below `folder` with this suffix, sorted; raises UserError where there is none."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; --data must be the root of {what}")
    paths = sorted(path for path in folder.rglob(f"*{suffix}") if not path.name.startswith("."))
    if not paths:
        raise UserError(f"{folder}: no {suffix} files; --data must be the root of {what}")
    return paths


def _open(path: Path, mode: str | None) -> Image.Image:
    try:
        with Image.open(path) as file:
            file.load()
            return file.convert(mode) if mode else file
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; is the copy complete?") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path}: not a whole image file ({error})") from error
