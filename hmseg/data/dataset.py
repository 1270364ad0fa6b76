"""What all data sets share: pairs of an image and a mask, checked and read as uint8 arrays."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hmseg.data.classes import ClassSet
from hmseg.data.files import files_in
from hmseg.data.image_file import image_size, read_image, read_mask
from lut.errors import UserError

Array = NDArray[np.uint8]
_NAMED = 5  # broken files
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

    `label_map[v]` is the class of mask value v, 255 for void; values not in it are an error. Images
    have `channels`, as `read_image` makes them.
    """

    classes: ClassSet
    split: str
    frames: tuple[Frame, ...]
    label_map: Mapping[int, int]
    channels: int = 3

    def __len__(self) -> int:
        return len(self.frames)

    @cached_property
    def _table(self) -> NDArray[np.int16]:
        table = np.full(256, -1, dtype=np.int16)
        table[list(self.label_map)] = list(self.label_map.values())
        return table

    @property
    def labelled(self) -> bool:
        """Whether every frame has a mask."""
        return all(frame.mask is not None for frame in self.frames)

    def load_image(self, index: int) -> Array:
        """uint8 (H, W, C); raises UserError naming a file that cannot be read."""
        return read_image(self.frames[index].image, self.channels)

    def load(self, index: int) -> tuple[Array, Array]:
        """Image and labels of one frame.

        Raises UserError naming the file: no mask, unreadable, another size than the image, or a
        value that is no label of this data set.
        """
        self._mask_of(index)
        image = self.load_image(index)
        return image, self._labels(index, image.shape[:2])

    def load_labels(self, index: int) -> Array:
        """Those of `load`, of whose image the head alone is read; raises UserError as that."""
        self._mask_of(index)
        return self._labels(index, image_size(self.frames[index].image))

    def _mask_of(self, index: int) -> Path:
        frame = self.frames[index]
        if frame.mask is None:
            raise UserError(f"{frame.image}: the {self.split} split has no labels")
        return frame.mask

    def _labels(self, index: int, size: tuple[int, ...]) -> Array:
        path = self._mask_of(index)
        mask = read_mask(path)
        if mask.shape != size:
            raise UserError(
                f"{path}: the mask is {mask.shape[0]}x{mask.shape[1]}, "
                f"its image {size[0]}x{size[1]}"
            )
        labels = self._table[mask]
        if labels.min() < 0:
            unknown = sorted(set(mask[labels < 0].tolist()))
            raise UserError(
                f"{path}: unknown label ids {', '.join(map(str, unknown[:5]))}; "
                f"is this a {self.classes.name} mask?"
            )
        return labels.astype(np.uint8)


class InMemory:
    """A split decoded once and kept as uint8."""

    def __init__(self, data: SegmentationData) -> None:
        self._samples = [data.load(index) for index in range(len(data))]

    def __len__(self) -> int:
        return len(self._samples)

    def load(self, index: int) -> tuple[Array, Array]:
        """Image (H, W, 3) and labels (H, W), uint8; not to be written to."""
        return self._samples[index]


def open_source(data: SegmentationData, limit_bytes: int = 4 << 30) -> SegmentationData | InMemory:
    """The split in memory if it fits in `limit_bytes`, else read from disk again and again.

    Either way every file's header is read first: a mask that is missing or of another size raises
    UserError before the training starts, not hours into it.
    """
    total, broken = 0, []
    for frame in data.frames:
        try:
            total += _check_header(frame)
        except UserError as error:
            broken.append(str(error))
    if broken:
        more = f"; and {len(broken) - _NAMED} more" if len(broken) > _NAMED else ""
        raise UserError("; ".join(broken[:_NAMED]) + more)
    return InMemory(data) if total <= limit_bytes else data


def pair(
    images: Mapping[str, Path], masks: Mapping[str, Path], mask_folder: Path
) -> tuple[Frame, ...]:
    """Match images to masks by key, in order; raises UserError for one without the other."""
    for key, image in images.items():
        if key not in masks:
            raise UserError(f"{image}: no mask for it in {mask_folder}; is the copy complete?")
    for key, mask in masks.items():
        if key not in images:
            raise UserError(f"{mask}: no image for this mask; is the copy complete?")
    return tuple(Frame(image, masks[key]) for key, image in images.items())


def list_files(folder: Path, suffix: str, what: str, *, among_others: bool = False) -> list[Path]:
    """The files below `folder` with this suffix (`files_in`), sorted; raises UserError where there
    is none."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; the data's folder must be the root of {what}")
    paths = files_in(folder, (suffix,), among_others=among_others)
    if not paths:
        raise UserError(
            f"{folder}: no {suffix} files; the data's folder must be the root of {what}"
        )
    return paths


def files_by_key(
    folder: Path, suffix: str, what: str, *, among_others: bool = False
) -> dict[str, Path]:
    """What `list_files` finds, by the place below `folder` without the suffix; raises UserError
    also where two have the same."""
    found: dict[str, Path] = {}
    for path in list_files(folder, suffix, what, among_others=among_others):
        key = str(path.relative_to(folder))[: -len(suffix)]
        if other := found.get(key):
            raise UserError(f"{path} and {other} have the same name; remove one of them")
        found[key] = path
    return found


def _check_header(frame: Frame) -> int:
    """Bytes of the decoded image and labels."""
    height, width = image_size(frame.image)
    if frame.mask is not None and (found := image_size(frame.mask)) != (height, width):
        raise UserError(
            f"{frame.mask}: the mask is {found[0]}x{found[1]}, its image {height}x{width}"
        )
    return width * height * 4
