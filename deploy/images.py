"""Where images lie, their sizes, label maps and coloured overlays out."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from deploy.resolution import Resolution
from hmseg.data.classes import ClassSet
from hmseg.data.files import files_in
from hmseg.data.image_file import FORMATS, SUFFIXES, to_array
from hmseg.data.image_file import read_image as read_image  # what is run reads as training does
from lut.errors import UserError
from lut.files import atomic_path

_ROWS = 64  # drawn over at once: what is between a large picture and its overlay takes memory


def find_images(path: Path) -> list[Path]:
    """An image file, or those directly inside a folder, in order; hidden files, such as those that
    a Mac leaves beside others, and those with other suffixes are passed over (`files_in`).

    Raises UserError for a path that does not exist and a folder without images.
    """
    try:
        if not path.is_dir():
            path.stat()
            return [path]
    except FileNotFoundError:
        raise UserError(f"{path}: no such file or folder") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    files = files_in(path, SUFFIXES, below=False)
    if not files:
        raise UserError(f"{path}: no {FORMATS} files in this folder")
    return files


def images_in(folder: Path) -> list[Path]:
    """`find_images` of a folder of frames; raises UserError for a file, too."""
    if not folder.exists():
        raise UserError(f"{folder}: no such folder")
    if folder.is_file():
        raise UserError(f"{folder}: a file; give the folder that the frames lie in")
    return find_images(folder)


def to_channels(image: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """An RGB image uint8 (H, W, 3) as (H, W, C): grey, itself, or opaque RGBA."""
    return image if channels == image.shape[2] else to_array(Image.fromarray(image), channels)


def resize_image(image: NDArray[np.uint8], size: Resolution) -> NDArray[np.uint8]:
    """Bilinear with antialiasing, uint8 (H, W, C) to (height, width, C)."""
    if image.shape[:2] == size:
        return image
    channels = image.shape[2]
    plain = image[..., 0] if channels == 1 else image
    return _resized(plain, size, Image.Resampling.BILINEAR).reshape(*size, channels)


def resize_labels(labels: NDArray[Any], size: Resolution) -> NDArray[Any]:
    """Nearest, labels (H, W) to (height, width), or each of masks (K, H, W): they are never
    mixed."""
    if labels.shape[-2:] == size:
        return labels
    if labels.ndim == 3:
        masks = np.empty((len(labels), *size), labels.dtype)
        for index, mask in enumerate(labels):  # each alone: those of a large picture are large
            masks[index] = resize_labels(mask, size)
        return masks
    return _resized(labels, size, Image.Resampling.NEAREST)


def _resized(pixels: NDArray[Any], size: Resolution, how: Image.Resampling) -> NDArray[Any]:
    return np.asarray(Image.fromarray(pixels).resize((size.width, size.height), how))


def save_labels(labels: NDArray[Any], classes: ClassSet, path: Path) -> None:
    """Write a label map as a PNG whose pixel values are the class indices: uint8 shown in the
    palette, uint16 as 16-bit grey, for which PNG has no palette."""
    if labels.dtype == np.uint16:
        _save_png(Image.fromarray(labels), path)
        return
    image = Image.fromarray(labels, mode="P")
    image.putpalette([channel for colour in classes.palette for channel in colour])
    _save_png(image, path)


def save_mask(mask: NDArray[np.uint8], path: Path) -> None:
    """Write a mask of 0 and 1 as a PNG in black and white: pixel values 0 and 255."""
    _save_png(Image.fromarray(mask * np.uint8(255)), path)


def save_overlay(
    image: NDArray[np.uint8],
    found: NDArray[Any],
    classes: ClassSet,
    path: Path,
    *,
    background: bool = False,
) -> None:
    """Write what `draw_overlay` makes of these."""
    _save_png(draw_overlay(image, found, classes, background=background), path)


def draw_overlay(
    image: NDArray[np.uint8],
    found: NDArray[Any],
    classes: ClassSet,
    *,
    background: bool = False,
    steady: bool = False,
) -> Image.Image:
    """An RGB image with the classes' colours over it and a legend of those that occur below.

    found: labels (H, W), of which with a `background` class 0 is left as it is in the image; or
    masks (K, H, W), whose colours are mixed where several meet. `steady` is for the frames of a
    video (`_steady_places`).
    """
    masks = found if found.ndim == 3 else None
    kinds = len(classes) if masks is None else len(masks)
    counts = np.zeros(kinds, np.int64)
    blended = np.empty(image.shape, np.uint8)
    for first in range(0, len(image), _ROWS):
        rows = np.s_[first : first + _ROWS]
        if masks is None:
            seen = np.bincount(found[rows].ravel(), minlength=kinds)
            counts = np.pad(counts, (0, len(seen) - len(counts))) + seen
            blended[rows] = _blend_labels(image[rows], found[rows], classes, background=background)
        else:
            counts += masks[:, rows].sum((1, 2), dtype=np.int64)
            blended[rows] = _blend_masks(image[rows], masks[:, rows], classes)
    area = image.shape[0] * image.shape[1]
    order = [int(i) for i in np.argsort(-counts, kind="stable") if counts[i]]
    shares = {i: float(counts[i] / area) for i in order if i < len(classes)}
    picture = Image.fromarray(blended)
    del blended
    return _with_legend(picture, classes, shares, steady) if shares or steady else picture


def _blend_labels(
    image: NDArray[np.uint8], found: NDArray[Any], classes: ClassSet, *, background: bool
) -> NDArray[np.uint8]:
    # In twentieths: in floats it would take ten times as long, which a video feels.
    parts = 11 * np.array(classes.palette, np.uint16)
    sums = np.multiply(image, 9, dtype=np.uint16) + parts.take(found, 0, mode="clip")
    blended: NDArray[np.uint8] = ((sums + np.uint16(10)) // np.uint16(20)).astype(np.uint8)
    return np.where(found[..., None] > 0, blended, image) if background else blended


def _blend_masks(
    image: NDArray[np.uint8], masks: NDArray[np.uint8], classes: ClassSet
) -> NDArray[np.uint8]:
    covered = masks.sum(0)
    sums = np.tensordot(masks, np.array(classes.palette, np.float32), (0, 0))
    colours = sums / np.maximum(covered, 1)[..., None]
    blended = np.where(covered[..., None] > 0, 0.45 * image + 0.55 * colours, image).round()
    rounded: NDArray[np.uint8] = blended.astype(np.uint8)
    return rounded


def _with_legend(
    picture: Image.Image, classes: ClassSet, shares: dict[int, float], steady: bool
) -> Image.Image:
    """The picture with a strip below it: a swatch, a name and a share for each class present."""
    size = max(11, min(28, picture.height // 24))
    line = int(size * 1.6)
    font = ImageFont.load_default(size)
    entries = {index: f"{classes.names[index]} {share:.0%}" for index, share in shares.items()}
    if steady:
        widest = _widest_entry(classes.names, size)
    else:
        widest = max(int(font.getlength(entry)) for entry in entries.values())
    cell = widest + 3 * size
    columns = max(1, picture.width // cell)
    if steady:
        rows = min(-(-len(classes) // columns), max(1, picture.height // 4 // line))
        places = _steady_places(shares, len(classes), rows * columns)
    else:
        rows = -(-len(entries) // columns)
        places = {index: place for place, index in enumerate(shares)}
    # A picture narrower than one entry is padded, not cut.
    width = max(picture.width, cell)
    canvas = Image.new("RGB", (width, picture.height + rows * line + size // 2), "white")
    canvas.paste(picture, (0, 0))
    draw = ImageDraw.Draw(canvas)
    for index, place in places.items():
        x = (place % columns) * cell + size // 2
        y = picture.height + (place // columns) * line + size // 3
        draw.rectangle([x, y, x + size, y + size], fill=classes.palette[index], outline="black")
        draw.text((x + int(size * 1.4), y - size * 0.1), entries[index], fill="black", font=font)
    return canvas


def _steady_places(shares: dict[int, float], classes: int, room: int) -> dict[int, int]:
    """The classes present, each with its place in a legend that is as large for every frame: its
    own, so that nothing jumps; where there is no room for all, those that cover most, in order."""
    if classes <= room:
        return {index: index for index in shares}
    return {index: place for place, index in enumerate(sorted(list(shares)[:room]))}


@lru_cache(maxsize=8)
def _widest_entry(names: tuple[str, ...], size: int) -> int:
    """Pixels that any class's entry needs, whatever its share."""
    font = ImageFont.load_default(size)
    return max(int(font.getlength(f"{name} 100%")) for name in names)


def _save_png(image: Image.Image, path: Path) -> None:
    with atomic_path(path) as temporary:
        image.save(temporary, format="PNG")
