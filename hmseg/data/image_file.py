"""Image files in: the one reader of training, evaluation and running, so that all see the same
pixels."""

import os
import stat
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import (
    BITSPERSAMPLE,
    IMAGELENGTH,
    IMAGEWIDTH,
    PHOTOMETRIC_INTERPRETATION,
    TiffImageFile,
)

from lut.errors import UserError

T = TypeVar("T")

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
FORMATS = "PNG, JPEG, WebP, BMP or TIFF"
_FORMATS = ["PNG", "JPEG", "WEBP", "BMP", "TIFF"]  # Pillow knows many more, few of them well
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # of Pillow, by the number of channels
_TURNED = (5, 6, 7, 8)  # values of EXIF's orientation that exchange height and width
_ORIENTATION = 0x0112
_WHITE_IS_ZERO = 0  # of TIFF's photometric interpretations
_STRETCHED = {"L;2": 85, "L;4": 17}  # what Pillow multiplies grey of so few bits by
_PNG_MAGIC_BYTES = 8
_PNG_TELLING = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")  # chunks in which EXIF is kept


def read_image(path: Path, channels: int = 3) -> NDArray[np.uint8]:
    """Decode an image as uint8 (H, W, C), turned upright as its EXIF data says: grey, RGB or,
    opaque where it has no alpha, RGBA. Of 12 and 16 bits the high ones count; of several pages the
    first.

    Raises UserError for a file that is missing, empty, cut short, or no image that is read here.
    """
    return _open(path, lambda image: to_array(_upright(image), channels))


def read_mask(path: Path) -> NDArray[np.uint8]:
    """Decode a mask as uint8 (H, W): values, or places in a palette, as they are stored. Raises
    UserError as `read_image`, and for more than one channel of 8 bits."""
    return np.asarray(_open(path, _mask))


def image_size(path: Path) -> tuple[int, int]:
    """Height and width, upright, from a file's head; raises UserError as `read_image`."""
    return _open(path, _size)


def to_array(image: Image.Image, channels: int) -> NDArray[np.uint8]:
    """An image in memory as uint8 (H, W, C). Grey is that of the RGB image, whatever the form."""
    mode = _MODES[channels]
    if mode == "L" and image.mode not in ("L", "RGB"):
        image = image.convert("RGB")
    array: NDArray[np.uint8] = np.asarray(image if image.mode == mode else image.convert(mode))
    return array.reshape(*array.shape[:2], channels)


def _open(path: Path, read: Callable[[Image.Image], T]) -> T:
    """What `read` makes of a file: the one door through which images come."""
    try:
        if not stat.S_ISREG(mode := path.stat().st_mode) and not stat.S_ISDIR(mode):
            raise UserError("a pipe or a device, not a file")  # which may have no end
        with Image.open(path, formats=_FORMATS) as image:
            return read(image)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except UnidentifiedImageError:
        raise UserError(f"{path}: not a {FORMATS} image") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be decoded ({error.strerror or error})") from error
    except MemoryError as error:
        raise UserError(f"{path}: there is not enough memory to decode it") from error
    except Exception as error:  # Pillow's readers of damaged files raise whatever they meet
        raise UserError(f"{path}: cannot be decoded ({error})") from error


def _size(image: Image.Image) -> tuple[int, int]:
    # A PNG's own `getexif` decodes the whole picture, for what may stand behind it.
    head_is_all = isinstance(image, PngImageFile) and not _tells_behind(image)
    exif = Image.Image.getexif(image) if head_is_all else image.getexif()
    width, height = image.size
    if isinstance(image, TiffImageFile):  # whose `size` Pillow may have turned already
        width, height = image.tag_v2[IMAGEWIDTH], image.tag_v2[IMAGELENGTH]
    return (width, height) if exif.get(_ORIENTATION) in _TURNED else (height, width)


def _tells_behind(image: PngImageFile) -> bool:
    """Whether a PNG has a chunk behind its pixels that may hold EXIF."""
    file, behind = image.fp, False
    assert file is not None
    place = file.tell()
    file.seek(_PNG_MAGIC_BYTES)
    while len(head := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        if behind and name in _PNG_TELLING:
            break
        behind = behind or name == b"IDAT"
        file.seek(length + 4, os.SEEK_CUR)  # a checksum besides
    file.seek(place)
    return bool(head)


def _mask(image: Image.Image) -> Image.Image:
    if image.mode not in ("L", "P"):
        raise UserError(f"expected a mask of one 8-bit channel, not {image.mode}")
    assert isinstance(image, ImageFile.ImageFile)
    stored: Any = image.tile[0][3]  # gone when the pixels are read
    ImageOps.exif_transpose(image, in_place=True)
    image.load()
    if stretched := _STRETCHED.get(stored if isinstance(stored, str) else stored[0]):
        return image.point(lambda value: value // stretched)
    return image


def _upright(image: Image.Image) -> Image.Image:
    tags = dict(image.tag_v2) if isinstance(image, TiffImageFile) else {}
    ImageOps.exif_transpose(image, in_place=True)
    image.load()
    if image.mode == "P" and isinstance(image.info.get("transparency"), bytes):
        return image.convert("RGBA")
    if image.mode[0] not in "IF":
        return image
    if image.mode == "F":
        raise UserError("its pixels are floats; save it with 8 or 16 bits")
    pixels = np.asarray(image)
    if pixels.dtype.itemsize > 2:  # how many of the bits count, nothing says
        raise UserError("its pixels have 32 bits; save it with 8 or 16")
    # The high 8 of all bits: `convert` would cut off at 255.
    high = (pixels >> (tags.get(BITSPERSAMPLE, (16,))[0] - 8)).astype(np.uint8)
    if tags.get(PHOTOMETRIC_INTERPRETATION) == _WHITE_IS_ZERO:  # Pillow minds it for fewer bits
        high = ~high
    return Image.fromarray(high)
