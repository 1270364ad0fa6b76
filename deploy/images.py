"""Image files in, label maps and coloured overlays out."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError

from deploy.resolution import Resolution
from hmseg.data.classes import ClassSet
from lut.errors import UserError
from lut.files import atomic_path

SUFFIXES = (".png", ".jpg", ".jpeg")


def find_images(paths: Iterable[Path]) -> list[Path]:
    """The image files named, and those directly inside the folders named, in order.

    Raises UserError for a path that does not exist and a folder without PNG or JPEG files.
    """
    found: list[Path] = []
    for path in paths:
        try:
            found += _images_in(path) if path.is_dir() else [path]
            path.stat()
        except FileNotFoundError:
            raise UserError(f"{path}: no such file or folder") from None
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    return found


def _images_in(folder: Path) -> list[Path]:
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
    if not files:
        raise UserError(f"{folder}: no PNG or JPEG files in this folder")
    return files


def read_image(path: Path) -> NDArray[np.uint8]:
    """Decode a PNG or JPEG as uint8 (H, W, 3) RGB, turned upright as its EXIF data says.

    Raises UserError for a file that is missing, empty, cut short or no PNG or JPEG.
    """
    try:
        with Image.open(path, formats=["PNG", "JPEG"]) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode.startswith("I"):  # 16-bit grey: convert would cut it off at 255
                upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
            return np.asarray(upright.convert("RGB"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except UnidentifiedImageError:
        raise UserError(f"{path}: not a PNG or JPEG image") from None
    # Pillow reports damage as OSError, SyntaxError (PNG chunks) or ValueError.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: cannot be decoded ({error})") from error


def resize_image(image: NDArray[np.uint8], size: Resolution) -> NDArray[np.uint8]:
    """Bilinear with antialiasing, uint8 (H, W, 3) to (height, width, 3)."""
    return _resized(image, size, Image.Resampling.BILINEAR)


def resize_labels(labels: NDArray[np.uint8], size: Resolution) -> NDArray[np.uint8]:
    """Nearest, uint8 (H, W) to (height, width): labels are never mixed."""
    return _resized(labels, size, Image.Resampling.NEAREST)


def _resized(
    pixels: NDArray[np.uint8], size: Resolution, how: Image.Resampling
) -> NDArray[np.uint8]:
    if pixels.shape[:2] == size:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((size.width, size.height), how))


def save_labels(labels: NDArray[np.uint8], classes: ClassSet, path: Path) -> None:
    """Write a label map as a PNG whose pixel values are the class indices, shown in the palette."""
    image = Image.fromarray(labels, mode="P")
    image.putpalette([channel for colour in classes.palette for channel in colour])
    _save_png(image, path)


def save_overlay(
    image: NDArray[np.uint8], labels: NDArray[np.uint8], classes: ClassSet, path: Path
) -> None:
    """Write the image with the classes' colours over it and a legend of those that occur."""
    palette = np.array(classes.palette, np.float32)
    blended = 0.45 * image + 0.55 * palette[np.minimum(labels, len(palette) - 1)]
    picture = Image.fromarray(blended.round().astype(np.uint8))
    present = np.bincount(labels.ravel(), minlength=len(classes))
    order = [int(i) for i in np.argsort(-present, kind="stable") if present[i]]
    shares = [(i, present[i] / labels.size) for i in order if i < len(classes)]
    _save_png(_with_legend(picture, classes, shares), path)


def _with_legend(
    picture: Image.Image, classes: ClassSet, shares: list[tuple[int, float]]
) -> Image.Image:
    """The picture with a strip below it: a swatch, a name and a share for each class present."""
    size = max(11, min(28, picture.height // 24))
    font = ImageFont.load_default(size)
    entries = [f"{classes.names[index]} {share:.0%}" for index, share in shares]
    cell = max(int(font.getlength(entry)) for entry in entries) + 3 * size
    columns = max(1, picture.width // cell)
    rows = -(-len(entries) // columns)
    line = int(size * 1.6)
    # A picture narrower than one entry is padded, not cut.
    width = max(picture.width, cell)
    canvas = Image.new("RGB", (width, picture.height + rows * line + size // 2), "white")
    canvas.paste(picture, (0, 0))
    draw = ImageDraw.Draw(canvas)
    for position, (entry, (index, _)) in enumerate(zip(entries, shares, strict=True)):
        x = (position % columns) * cell + size // 2
        y = picture.height + (position // columns) * line + size // 3
        draw.rectangle([x, y, x + size, y + size], fill=classes.palette[index], outline="black")
        draw.text((x + int(size * 1.4), y - size * 0.1), entry, fill="black", font=font)
    return canvas


def _save_png(image: Image.Image, path: Path) -> None:
    with atomic_path(path) as temporary:
        image.save(temporary, format="PNG")
