import io
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from deploy.images import (
    draw_overlay,
    find_images,
    read_image,
    resize_image,
    resize_labels,
    save_labels,
    save_overlay,
    to_channels,
)
from deploy.resolution import Resolution
from hmseg.data.classes import CITYSCAPES, generic_classes
from hmseg.data.files import PassedOverWarning
from lut.errors import UserError
from tests.deploy.graphs import photo

PHOTO = photo(Resolution(20, 30))


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def read(tmp_path: Path):
    def read_bytes(content: bytes) -> np.ndarray:
        path = tmp_path / "image"
        path.write_bytes(content)
        return read_image(path)

    return read_bytes


class TestChannels:
    def test_grey_and_rgba(self, tmp_path):
        """As Pillow converts; opaque where the picture has no alpha."""
        path = tmp_path / "i.png"
        Image.fromarray(PHOTO).save(path)
        grey = np.asarray(Image.fromarray(PHOTO).convert("L"))
        np.testing.assert_array_equal(read_image(path, 1), grey[..., None])
        np.testing.assert_array_equal(to_channels(PHOTO, 1), grey[..., None])
        opaque = np.dstack([PHOTO, np.full(PHOTO.shape[:2], 255, np.uint8)])
        np.testing.assert_array_equal(read_image(path, 4), opaque)
        np.testing.assert_array_equal(to_channels(PHOTO, 4), opaque)
        assert to_channels(PHOTO, 3) is PHOTO
        alpha = opaque.copy()
        alpha[..., 3] = np.arange(PHOTO.shape[1]) * 8
        Image.fromarray(alpha).save(path)
        np.testing.assert_array_equal(read_image(path, 4), alpha)
        np.testing.assert_array_equal(read_image(path), PHOTO)

    @pytest.mark.parametrize("channels", [1, 3, 4])
    def test_resized(self, channels):
        image = to_channels(PHOTO, channels)
        assert resize_image(image, Resolution(10, 25)).shape == (10, 25, channels)
        assert resize_image(image, Resolution(20, 30)) is image
        planes = [Image.fromarray(image[..., i]) for i in range(channels)]
        resized = [np.asarray(p.resize((25, 10), Image.Resampling.BILINEAR)) for p in planes]
        found = resize_image(image, Resolution(10, 25))
        np.testing.assert_allclose(found.astype(int), np.dstack(resized).astype(int), atol=1)


class TestRead:
    def test_png_is_exact(self, read):
        np.testing.assert_array_equal(read(encoded(Image.fromarray(PHOTO))), PHOTO)

    def test_jpeg_is_close(self, read):
        smooth = np.linspace(0, 255, 64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8)
        got = read(encoded(Image.fromarray(smooth), "JPEG", quality=95))
        assert np.abs(got.astype(int) - smooth).max() < 12

    @pytest.mark.parametrize(
        ("orientation", "upright"),
        [
            (1, lambda a: a),
            (2, lambda a: a[:, ::-1]),
            (3, lambda a: a[::-1, ::-1]),
            (4, lambda a: a[::-1]),
            (5, lambda a: a.swapaxes(0, 1)),
            (6, lambda a: a.swapaxes(0, 1)[:, ::-1]),
            (7, lambda a: a.swapaxes(0, 1)[::-1, ::-1]),
            (8, lambda a: a.swapaxes(0, 1)[::-1]),
        ],
    )
    def test_exif_rotation(self, read, orientation, upright):
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored = encoded(Image.fromarray(PHOTO), exif=exif)
        np.testing.assert_array_equal(read(stored), upright(PHOTO))

    def test_exif_rotation_of_a_jpeg(self, read):
        exif = Image.Exif()
        exif[0x0112] = 6
        assert read(encoded(Image.fromarray(PHOTO), "JPEG", exif=exif)).shape == (30, 20, 3)

    def test_grayscale(self, read):
        gray = PHOTO[..., 0]
        expected = gray[..., None].repeat(3, axis=2)
        np.testing.assert_array_equal(read(encoded(Image.fromarray(gray))), expected)

    def test_sixteen_bits_keep_their_high_byte(self, read):
        deep = PHOTO[..., 0].astype(np.uint16) * 256 + 77
        got = read(encoded(Image.fromarray(deep)))
        np.testing.assert_array_equal(got, PHOTO[..., :1].repeat(3, axis=2))

    def test_sixteen_bit_colour(self, read):
        def chunk(kind: bytes, data: bytes) -> bytes:
            checksum = struct.pack(">I", zlib.crc32(kind + data))
            return struct.pack(">I", len(data)) + kind + data + checksum

        rows = (PHOTO.astype(">u2") * 256 + 9).astype(">u2")
        raw = b"".join(b"\0" + row.tobytes() for row in rows)
        header = struct.pack(">IIBBBBB", 30, 20, 16, 2, 0, 0, 0)
        png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
        png += chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")
        np.testing.assert_array_equal(read(png), PHOTO)

    def test_palette_alpha_and_black_and_white(self, read):
        palette = Image.fromarray(PHOTO).quantize(16)
        np.testing.assert_array_equal(read(encoded(palette)), np.asarray(palette.convert("RGB")))
        alpha = np.dstack([PHOTO, np.full(PHOTO.shape[:2], 9, np.uint8)])
        np.testing.assert_array_equal(read(encoded(Image.fromarray(alpha))), PHOTO)
        one_bit = Image.fromarray(PHOTO[..., 0] > 127)
        assert set(np.unique(read(encoded(one_bit)))) == {0, 255}

    def test_cmyk_jpeg(self, read):
        cmyk = Image.fromarray(PHOTO).convert("CMYK")
        assert read(encoded(cmyk, "JPEG")).shape == (20, 30, 3)

    @pytest.mark.parametrize(
        "content",
        [b"", b"not an image", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a" + bytes(50),
         encoded(Image.fromarray(PHOTO), "PPM"), encoded(Image.fromarray(PHOTO), "GIF")],
    )  # fmt: skip
    def test_files_of_other_forms(self, read, content):
        with pytest.raises(UserError, match=r"not a PNG, JPEG|cannot be decoded") as caught:
            read(content)
        assert "\n" not in str(caught.value)

    def test_missing_and_unreadable(self, tmp_path):
        with pytest.raises(UserError, match="no such file"):
            read_image(tmp_path / "none.png")
        with pytest.raises(UserError, match="cannot be decoded"):
            read_image(tmp_path)
        with pytest.raises(UserError, match="cannot be decoded"):
            read_image(tmp_path / ("n" * 300))

    def test_a_bomb_is_refused_before_it_is_decoded(self, read):
        def chunk(kind: bytes, data: bytes) -> bytes:
            checksum = struct.pack(">I", zlib.crc32(kind + data))
            return struct.pack(">I", len(data)) + kind + data + checksum

        header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
        png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
        with pytest.raises(UserError, match="cannot be decoded"):
            read(png + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b""))


EXIF = Image.Exif()
EXIF[0x0112] = 6
FILES = [
    encoded(Image.fromarray(PHOTO)),
    encoded(Image.fromarray(PHOTO), exif=EXIF),
    encoded(Image.fromarray(PHOTO), "JPEG", exif=EXIF),
    encoded(Image.fromarray(PHOTO).quantize(16)),
]


def outcome(content: bytes, folder: Path) -> None:
    """An image or a UserError of one line; any other exception fails the test."""
    path = folder / "image"
    path.write_bytes(content)
    try:
        image = read_image(path)
    except UserError:
        return
    assert image.dtype == np.uint8
    assert image.ndim == 3


@settings(max_examples=400)
@given(st.sampled_from(FILES), st.data())
def test_damage_anywhere(tmp_path_factory, content, data):
    folder = tmp_path_factory.getbasetemp()
    outcome(content[: data.draw(st.integers(0, len(content)))], folder)
    changed = bytearray(content)
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    outcome(bytes(changed), folder)


def test_a_cut_image_is_never_taken(tmp_path):
    for content in FILES:
        path = tmp_path / "cut"
        path.write_bytes(content[: len(content) * 2 // 3])
        with pytest.raises(UserError, match="cut: cannot be decoded"):
            read_image(path)


class TestFind:
    def test_files_and_folders_in_order(self, tmp_path):
        for name in ("b.png", "a.JPG", "c.jpeg", "notes.txt", ".hidden"):
            (tmp_path / name).touch()
        (tmp_path / "folder.png").mkdir()
        (tmp_path / "deeper").mkdir()
        (tmp_path / "deeper" / "z.png").touch()
        # A file named is believed; in a folder the suffix decides, and nothing below is looked at.
        assert find_images(tmp_path / "notes.txt") == [tmp_path / "notes.txt"]
        with pytest.warns(PassedOverWarning, match="1 hidden, 1 not"):
            names = [path.name for path in find_images(tmp_path)]
        assert names == ["a.JPG", "b.png", "c.jpeg"]

    def test_what_is_not_there(self, tmp_path):
        with pytest.raises(UserError, match="no such file or folder"):
            find_images(tmp_path / "none.png")
        with pytest.raises(UserError, match="no PNG, JPEG, WebP, BMP or TIFF files"):
            find_images(tmp_path)
        with pytest.raises(UserError, match="cannot be read"):
            find_images(tmp_path / ("n" * 300))


class TestResize:
    def test_equal_sizes_are_not_touched(self):
        assert resize_image(PHOTO, Resolution(20, 30)) is PHOTO
        labels = PHOTO[..., 0]
        assert resize_labels(labels, Resolution(20, 30)) is labels

    def test_height_and_width_are_not_swapped(self):
        assert resize_image(PHOTO, Resolution(64, 96)).shape == (64, 96, 3)
        assert resize_labels(PHOTO[..., 0], Resolution(64, 96)).shape == (64, 96)

    @settings(max_examples=50)
    @given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 90), st.integers(1, 90))
    def test_labels_are_never_mixed(self, height, width, to_height, to_width):
        rng = np.random.default_rng(height * width)
        labels = rng.choice(np.array([0, 7, 255], np.uint8), (height, width))
        got = resize_labels(labels, Resolution(to_height, to_width))
        y = (np.arange(to_height) + 0.5) * height / to_height
        x = (np.arange(to_width) + 0.5) * width / to_width
        # On the border between two pixels either is nearest.
        sure_rows, sure_columns = (np.abs(p - np.round(p)) > 1e-6 for p in (y, x))
        expected = labels[y.astype(int)][:, x.astype(int)]
        np.testing.assert_array_equal(
            got[sure_rows][:, sure_columns], expected[sure_rows][:, sure_columns]
        )
        assert set(np.unique(got)) <= set(np.unique(labels))

    def test_images_are_averaged_when_they_shrink(self):
        board = np.indices((64, 64)).sum(0) % 2 * 255
        small = resize_image(board.astype(np.uint8)[..., None].repeat(3, 2), Resolution(8, 8))
        assert np.abs(small.astype(int) - 127).max() <= 2


class TestSave:
    def test_label_pngs_hold_the_indices_and_the_palette(self, tmp_path):
        labels = np.arange(20, dtype=np.uint8).repeat(20).reshape(20, 20) % 19
        save_labels(labels, CITYSCAPES, tmp_path / "l.png")
        with Image.open(tmp_path / "l.png") as image:
            assert image.mode == "P"
            np.testing.assert_array_equal(np.asarray(image), labels)
            colours = np.asarray(image.convert("RGB"))
        np.testing.assert_array_equal(colours, np.array(CITYSCAPES.palette, np.uint8)[labels])

    @pytest.mark.parametrize("count", [2, 200, 255])
    def test_any_number_of_classes(self, tmp_path, count):
        labels = (np.arange(64 * 64, dtype=np.int64) % count).astype(np.uint8).reshape(64, 64)
        save_labels(labels, generic_classes(count), tmp_path / "l.png")
        with Image.open(tmp_path / "l.png") as image:
            np.testing.assert_array_equal(np.asarray(image), labels)
        image = np.zeros((64, 64, 3), np.uint8)
        save_overlay(image, labels, generic_classes(count), tmp_path / "o.png")

    @pytest.mark.parametrize("size", [(64, 64), (64, 400), (300, 20), (1, 1)])
    def test_overlays_hold_the_picture_and_a_legend(self, tmp_path, size):
        labels = np.zeros(size, np.uint8)
        labels[: size[0] // 2] = 10
        image = photo(Resolution(*size))
        save_overlay(image, labels, CITYSCAPES, tmp_path / "o.png")
        with Image.open(tmp_path / "o.png") as saved:
            pixels = np.asarray(saved.convert("RGB"))
        height, width = size
        colours = np.array(CITYSCAPES.palette, float)[labels]
        expected = 0.45 * image + 0.55 * colours
        assert np.abs(pixels[:height, :width] - expected).max() <= 0.51
        legend = pixels[height:]
        assert legend.shape[0] > 10
        assert pixels.shape[1] >= width
        # The swatch of each class present, in its colour; of no other class.
        found = {tuple(int(c) for c in pixel) for pixel in legend.reshape(-1, 3)}
        present = {CITYSCAPES.palette[index] for index in np.unique(labels)}
        assert present <= found
        # Greys aside, which the edges of the letters are made of.
        coloured = {colour for colour in CITYSCAPES.palette if len(set(colour)) > 1}
        assert not (coloured - present) & found
        # Nothing is cut at the right edge: the last columns are blank.
        assert (legend[:, -2:] == 255).all()

    def test_a_steady_legend_has_a_place_for_each_class(self):
        """All pictures are as large, and what two have in common stands where it stood."""
        image = photo(Resolution(400, 1200))
        one = np.asarray(draw_overlay(image, np.full((400, 1200), 3), CITYSCAPES, steady=True))
        labels = np.arange(1200).repeat(400).reshape(1200, 400).T % 19
        labels[0] = 3
        all_ = np.asarray(draw_overlay(image, labels, CITYSCAPES, steady=True))
        nothing = np.asarray(draw_overlay(image, np.full((400, 1200), 99), CITYSCAPES, steady=True))
        assert one.shape == all_.shape == nothing.shape
        assert (nothing[400:] == 255).all()
        colour = np.array(CITYSCAPES.palette[3])
        places = [np.argwhere((shown[400:] == colour).all(-1)) for shown in (one, all_)]
        np.testing.assert_array_equal(places[0].min(0), places[1].min(0))
        for index in range(19):
            assert (all_[400:] == CITYSCAPES.palette[index]).all(-1).any()

    def test_a_steady_legend_without_room_for_all(self):
        """A quarter of the image's height, for those that cover most."""
        labels = np.full((240, 320), 700)
        labels[:80], labels[80:90] = 4, 9
        image = np.zeros((240, 320, 3), np.uint8)
        classes = generic_classes(1000)
        shown = np.asarray(draw_overlay(image, labels, classes, steady=True))
        assert 240 < shown.shape[0] <= 240 * 5 // 4 + 20
        for index in (4, 9, 700):
            assert (shown[240:] == classes.palette[index]).all(-1).any()
        crowd = np.arange(240 * 320).reshape(240, 320) % 1000
        assert draw_overlay(image, crowd, classes, steady=True).size == shown.shape[1::-1]

    def test_a_place_that_cannot_be_written(self, tmp_path):
        (tmp_path / "file").touch()
        for save in (
            lambda path: save_labels(PHOTO[..., 0], CITYSCAPES, path),
            lambda path: save_overlay(PHOTO, np.zeros((20, 30), np.uint8), CITYSCAPES, path),
        ):
            with pytest.raises(UserError, match="cannot write"):
                save(tmp_path / "file" / "l.png")
        assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("masks", [False, True])
def test_a_large_picture_takes_a_few_copies_of_itself(masks):
    """Below 30 bytes a pixel, whatever is drawn over it; the rest of them is Pillow's."""
    size = 1500, 2000
    image = np.full((*size, 3), 90, np.uint8)
    found = np.zeros((2, *size), np.uint8) if masks else np.zeros(size, np.uint8)
    tracemalloc.start()
    picture = draw_overlay(image, found, generic_classes(2))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert picture.width == 2000
    assert most < 8 * image[..., 0].size


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("background", [False, True])
def test_bands_of_rows_are_the_whole_picture(masks, background):
    """As it is drawn at once; a height that no number of bands makes up."""
    rng = np.random.default_rng(3)
    image = rng.integers(0, 256, (150, 64, 3), dtype=np.uint8)
    classes = generic_classes(4)
    shape = (4, 150, 64) if masks else (150, 64)
    found = rng.integers(0, 2 if masks else 4, shape, dtype=np.uint8)
    drawn = np.asarray(draw_overlay(image, found, classes, background=background))[:150, :64]
    palette = np.array(classes.palette, float)
    if masks:
        count = found.sum(0)[..., None]
        colours = np.tensordot(found, palette, (0, 0)) / np.maximum(count, 1)
        expected = np.where(count > 0, 0.45 * image + 0.55 * colours, image)
    else:
        expected = 0.45 * image + 0.55 * palette[found]
        if background:
            expected = np.where(found[..., None] > 0, expected, image)
    assert np.abs(drawn - expected).max() <= 0.5 + 1e-6
