"""The one reader of images. What Pillow itself makes of each form is the reference."""

import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from deploy.images import read_image as read_by_run
from hmseg.data.image_file import SUFFIXES, image_size, read_image, read_mask
from hmseg.data.registry import open_dataset
from lut.errors import UserError

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (20, 30), dtype=np.uint16)


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".tiff", ".webp"])
def test_forms_without_loss(tmp_path, suffix):
    path = tmp_path / f"i{suffix}"
    Image.fromarray(COLOURS).save(path, **({"lossless": True} if suffix == ".webp" else {}))
    assert suffix in SUFFIXES
    np.testing.assert_array_equal(read_image(path), COLOURS)
    assert image_size(path) == (20, 30)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_keep_their_high_byte(tmp_path, suffix):
    path = tmp_path / f"i{suffix}"
    Image.fromarray(DEEP).save(path)
    high = (DEEP >> 8).astype(np.uint8)
    np.testing.assert_array_equal(read_image(path), np.dstack([high] * 3))
    np.testing.assert_array_equal(read_image(path, 1), high[..., None])


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.full((4, 5), 0.5, np.float32), "floats; save it with 8 or 16 bits"),
        (np.full((4, 5), 200, np.int32), "32 bits; save it with 8 or 16"),
        (np.full((4, 5), 1 << 20, np.int32), "32 bits; save it with 8 or 16"),
        (np.full((4, 5), -1, np.int32), "32 bits"),
    ],
)
def test_pixels_of_other_kinds_are_refused(tmp_path, pixels, message):
    path = tmp_path / "i.tif"
    Image.fromarray(pixels).save(path)
    with pytest.raises(UserError, match=f"i.tif: its pixels .*{message}"):
        read_image(path)


def test_the_size_is_that_of_the_upright_image(tmp_path):
    path = tmp_path / "i.jpg"
    Image.fromarray(COLOURS).save(path, exif=turned())
    assert image_size(path) == (30, 20)
    assert read_image(path).shape == (30, 20, 3)


@pytest.mark.parametrize("exif", [False, True])
def test_the_size_is_read_without_decoding(tmp_path, exif):
    """What stands behind a PNG's head is cut off: nothing can be decoded."""
    path = tmp_path / "i.png"
    Image.fromarray(COLOURS).save(path, exif=turned() if exif else b"")
    path.write_bytes(path.read_bytes().partition(b"IDAT")[0] + b"IDAT" + bytes(4))
    assert image_size(path) == ((30, 20) if exif else (20, 30))
    with pytest.raises(UserError, match="cannot be decoded"):
        read_image(path)


def test_exif_behind_the_pixels_counts(tmp_path):
    """PNG lets it stand there; both readers see it."""
    path = tmp_path / "i.png"
    Image.fromarray(COLOURS).save(path, exif=turned())
    data = path.read_bytes()
    at = data.index(b"eXIf") - 4
    end = at + 12 + int.from_bytes(data[at : at + 4])
    last = len(data) - 12  # IEND
    path.write_bytes(data[:at] + data[end:last] + data[at:end] + data[last:])
    assert image_size(path) == (30, 20) == read_image(path).shape[:2]


@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA", "CMYK", "1", "I;16", "LA"])
def test_training_sees_what_run_sees(tmp_path, mode):
    """Whatever the form of a frame."""
    for folder in ("train", "trainannot"):
        (tmp_path / folder).mkdir()
    image = Image.fromarray(DEEP) if mode == "I;16" else Image.fromarray(COLOURS).convert(mode)
    if mode == "CMYK":
        image.save(tmp_path / "f.tif")
        (tmp_path / "f.tif").rename(tmp_path / "train" / "f.png")  # content counts, not the name
    else:
        image.save(tmp_path / "train" / "f.png", exif=turned())
    size = (30, 20) if mode == "CMYK" else (20, 30)
    Image.new("L", size).save(tmp_path / "trainannot" / "f.png")
    seen, labels = open_dataset("camvid", tmp_path, "train").load(0)
    np.testing.assert_array_equal(seen, read_by_run(tmp_path / "train" / "f.png"))
    assert seen.shape[:2] == labels.shape


def test_masks_are_read_as_they_are_stored(tmp_path):
    path = tmp_path / "m.png"
    values = RNG.integers(0, 12, (20, 30), dtype=np.uint8)
    palette = Image.fromarray(values, mode="P")
    palette.putpalette([7] * 36)
    for mask in (Image.fromarray(values), palette):
        mask.save(path)
        np.testing.assert_array_equal(read_mask(path), values)


@pytest.mark.parametrize("image", [DEEP, COLOURS, COLOURS[..., 0] > 99])
def test_masks_of_more_than_eight_bits_or_one_channel(tmp_path, image):
    path = tmp_path / "m.png"
    Image.fromarray(image).save(path)
    with pytest.raises(UserError, match="expected a mask of one 8-bit channel, not"):
        read_mask(path)


def test_what_is_no_image(tmp_path):
    path = tmp_path / "i.png"
    path.write_bytes(b"text")
    for read in (read_image, read_mask, image_size):
        with pytest.raises(UserError, match=r"i\.png: not a PNG, JPEG, WebP, BMP or TIFF image"):
            read(path)
        with pytest.raises(UserError, match="no such file"):
            read(tmp_path / "none.png")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_sizes_fit_the_pixels_in_every_form(tmp_path, suffix, orientation):
    """The head of a mask is compared with its image's before a training starts."""
    exif, path = Image.Exif(), tmp_path / f"i{suffix}"
    exif[0x0112] = orientation
    Image.fromarray(COLOURS).save(path, exif=exif)
    assert image_size(path) == read_image(path).shape[:2]
    assert image_size(path) == ((20, 30) if orientation < 5 else (30, 20))


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "RGB", "RGBA", "CMYK", "YCbCr", "LAB"])
@pytest.mark.parametrize("channels", [1, 4])
def test_other_channels_are_made_of_the_same_colours(tmp_path, mode, channels):
    path = tmp_path / "i.tif"
    if mode == "LAB":
        Image.frombytes("LAB", (30, 20), COLOURS.tobytes()).save(path)
    else:
        Image.fromarray(COLOURS).convert(mode).save(path)
    colours = read_image(path)
    given = np.asarray(Image.fromarray(colours).convert("L"))[..., None]
    seen = read_image(path, channels)
    np.testing.assert_array_equal(seen[..., :3], given if channels == 1 else colours)


def tiff(bits: int, photometric: int, pixels: bytes) -> bytes:
    """One strip of 30x20 grey pixels, written by hand: Pillow writes neither form."""
    entries = ((256, 30), (257, 20), (258, bits), (259, 1), (262, photometric), (273, 110),
               (277, 1), (278, 20))  # fmt: skip
    head = b"II*\0" + struct.pack("<IH", 8, len(entries))
    head += b"".join(struct.pack("<HHII", tag, 3, 1, value) for tag, value in entries)
    return (head + bytes(4)).ljust(110, b"\0") + pixels


def test_twelve_bits_fill_the_whole_range(tmp_path):
    path, dark = tmp_path / "i.tif", DEEP >> 4
    even, odd = dark[:, ::2].astype(int), dark[:, 1::2].astype(int)
    packed = np.stack([even >> 4, (even & 15) << 4 | odd >> 8, odd & 255], -1).astype(np.uint8)
    path.write_bytes(tiff(12, 1, packed.tobytes()))
    np.testing.assert_array_equal(read_image(path, 1)[..., 0], DEEP >> 8)


@pytest.mark.parametrize("bits", [8, 16])
def test_white_may_be_zero(tmp_path, bits):
    path = tmp_path / "i.tif"
    path.write_bytes(tiff(bits, 0, (~DEEP).astype("<u2" if bits == 16 else np.uint8).tobytes()))
    expected = DEEP >> 8 if bits == 16 else DEEP & 255
    np.testing.assert_array_equal(read_image(path, 1)[..., 0], expected)


@pytest.mark.parametrize("bits", [2, 4])
def test_grey_masks_of_few_bits_keep_their_values(tmp_path, bits):
    values = RNG.integers(0, 1 << bits, (20, 32), dtype=np.uint8)
    each = 8 // bits
    rows = sum(values[:, i::each].astype(int) << (8 - bits * (i + 1)) for i in range(each))
    lines = b"".join(b"\0" + row.tobytes() for row in np.asarray(rows, np.uint8))
    path = tmp_path / "m.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 32, 20, bits, 0, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(lines))
        + chunk(b"IEND", b"")
    )
    np.testing.assert_array_equal(read_mask(path), values)


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def test_a_palette_with_transparency_is_read_without_a_warning(tmp_path):
    path = tmp_path / "i.png"
    image = Image.fromarray(COLOURS).quantize(16)
    image.save(path, transparency=bytes(range(0, 256, 16)))
    with warnings.catch_warnings(action="error"):
        np.testing.assert_array_equal(read_image(path), np.asarray(image.convert("RGB")))
        assert len(np.unique(read_image(path, 4)[..., 3])) > 8


def test_a_pipe_is_not_waited_for(tmp_path):
    path = tmp_path / "i.png"
    os.mkfifo(path)
    for read in (read_image, read_mask, image_size):
        with pytest.raises(UserError, match=r"i\.png: a pipe or a device, not a file"):
            read(path)
