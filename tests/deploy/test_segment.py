import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from deploy.images import resize_image, resize_labels
from deploy.metadata import Metadata
from deploy.resolution import Resolution
from deploy.runtime import load
from deploy.segment import StretchedWarning, output_names, result_kinds, segment_file
from hmseg.data.classes import ClassSet, binary_classes, generic_classes
from lut.errors import UserError
from tests.deploy.graphs import photo
from tests.deploy.test_metadata import METADATA


@pytest.fixture(scope="module")
def loaded(artifact_path):
    return load(artifact_path)


@pytest.mark.parametrize("size", [(64, 64), (37, 90), (200, 50), (1, 1)])
def test_an_image_of_any_size(loaded, size, tmp_path):
    image = photo(Resolution(*size))
    Image.fromarray(image).save(tmp_path / "in.png")
    written = segment_file(loaded, tmp_path / "in.png", tmp_path / "out", "in")
    assert written == {
        "labels": str(tmp_path / "out" / "in-labels.png"),
        "overlay": str(tmp_path / "out" / "in-overlay.png"),
    }
    with Image.open(written["labels"]) as saved:
        labels = np.asarray(saved)
    assert labels.shape == size
    expected = loaded(resize_image(image, Resolution(64, 64)))
    np.testing.assert_array_equal(labels, resize_labels(expected, Resolution(*size)))
    with Image.open(written["overlay"]) as overlay:
        assert overlay.height > size[0]


def test_other_proportions_are_said_once(loaded, tmp_path):
    """For every picture of a size, with the filter that a program begins with."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for name, size in (("a", (64, 96)), ("b", (64, 96)), ("c", (32, 32)), ("d", (65, 64))):
            Image.fromarray(photo(Resolution(*size))).save(tmp_path / f"{name}.png")
            segment_file(loaded, tmp_path / f"{name}.png", tmp_path, name, overlay=False)
    assert [str(one.message) for one in caught if one.category is StretchedWarning] == [
        "pictures of 64x96 are stretched to the network's 64x64, of other proportions: crop them, "
        "or use a network of theirs"
    ]


def test_without_overlay(loaded, tmp_path):
    Image.fromarray(photo()).save(tmp_path / "in.png")
    written = segment_file(loaded, tmp_path / "in.png", tmp_path / "out", "x", overlay=False)
    assert list(written) == ["labels"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["x-labels.png"]


def test_a_broken_image_writes_nothing(loaded, tmp_path):
    (tmp_path / "in.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    with pytest.raises(UserError, match=r"in\.png"):
        segment_file(loaded, tmp_path / "in.png", tmp_path / "out", "in")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a/x.png", "b/y.jpg"], ["x", "y"]),
        (["x.png", "x.jpg"], ["x-png", "x-jpg"]),
        (["a/x.png", "b/x.png"], ["x-png-1", "x-png-2"]),
    ],
)
def test_names(paths, names):
    assert output_names([Path(path) for path in paths]) == names


class Played:
    """A network that finds what it is told to."""

    def __init__(self, metadata: Metadata, found: np.ndarray) -> None:
        self.metadata, self.found = metadata, found

    def __call__(self, given: np.ndarray) -> np.ndarray:
        assert (given.dtype, given.shape) == (self.metadata.input_dtype, self.metadata.input_shape)
        return self.found


SIZE = Resolution(64, 96)
SCORES = np.random.default_rng(0).normal(size=(1, *SIZE)).astype(np.float32)
BINARY = replace(METADATA, classes=binary_classes(), scores=1, threshold=0.5)


@pytest.mark.parametrize("kind", ["labels", "logits"])
def test_one_class_is_coloured_and_the_background_is_not(kind, tmp_path):
    metadata = replace(BINARY, output=kind, input="tensor")
    labels = (SCORES[0] > 0.5).astype(np.uint8)
    image = photo(SIZE)
    Image.fromarray(image).save(tmp_path / "in.png")
    network = Played(metadata, SCORES if kind == "logits" else labels)
    written = segment_file(network, tmp_path / "in.png", tmp_path, "x")
    with Image.open(written["labels"]) as saved:
        np.testing.assert_array_equal(np.asarray(saved), labels)
    with Image.open(written["overlay"]) as overlay:
        shown = np.asarray(overlay)[: SIZE.height, : SIZE.width]
    np.testing.assert_array_equal(shown[labels == 0], image[labels == 0])
    colour = np.array(metadata.classes.palette[1])
    blended = 0.45 * image[labels == 1] + 0.55 * colour
    np.testing.assert_allclose(shown[labels == 1], blended, atol=0.51)


def test_more_than_255_classes_are_16_bit_grey(tmp_path):
    metadata = replace(METADATA, classes=generic_classes(300))
    labels = np.arange(64 * 96, dtype=np.uint16).reshape(SIZE) % 300
    Image.fromarray(photo((128, 192))).save(tmp_path / "in.png")
    written = segment_file(Played(metadata, labels), tmp_path / "in.png", tmp_path, "x")
    with Image.open(written["labels"]) as saved:
        assert saved.mode == "I;16"
        np.testing.assert_array_equal(np.asarray(saved), labels.repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_overlapping_masks_mix_their_colours(channels, tmp_path):
    values = (0.5,) * channels
    classes = ClassSet("own", ("a", "b", "c"), ((250, 0, 0), (0, 250, 0), (0, 0, 250)))
    metadata = replace(
        METADATA, classes=classes, output="masks", threshold=0.0, channels=channels, mean=values,
        std=values,
    )  # fmt: skip
    masks = np.zeros((3, *SIZE), np.uint8)
    masks[0, :32], masks[1, :, :48] = 1, 1
    image = photo(SIZE)
    Image.fromarray(image).save(tmp_path / "in.png")
    written = segment_file(Played(metadata, masks), tmp_path / "in.png", tmp_path, "x")
    assert [Path(path).name for path in written["masks"]] == ["x-a.png", "x-b.png", "x-c.png"]
    with Image.open(written["masks"][1]) as saved:
        np.testing.assert_array_equal(np.asarray(saved), 255 * masks[1])
    with Image.open(written["overlay"]) as overlay:
        shown = np.asarray(overlay).astype(int)
    for (row, column), colour in {(0, 0): (125, 125, 0), (0, 95): (250, 0, 0)}.items():
        blended = 0.45 * image[row, column] + 0.55 * np.array(colour)
        np.testing.assert_allclose(shown[row, column], blended, atol=0.51)
    np.testing.assert_array_equal(shown[63, 95], image[63, 95])
    masks[:] = 0  # nothing is found: no colours, no legend
    segment_file(Played(metadata, masks), tmp_path / "in.png", tmp_path, "x")
    with Image.open(written["overlay"]) as overlay:
        np.testing.assert_array_equal(np.asarray(overlay), image)


@pytest.mark.parametrize(
    ("names", "kinds"),
    [
        (("a b", "a/b", "A_b"), ["a_b", "a_b-1", "A_b-2"]),
        (("labels", "overlay", "x"), ["labels-1", "overlay-1", "x"]),
        (("", "..", "\0"), ["class", "class-1", "class-2"]),
    ],
)
def test_masks_files_are_named_by_their_classes(names, kinds):
    classes = ClassSet("own", names, ((0, 0, 0),) * 3)
    metadata = replace(METADATA, classes=classes, output="masks", threshold=0.0)
    assert result_kinds(metadata) == kinds


pieces = st.lists(st.sampled_from(["a", "-", "png", "1", "2", "."]), min_size=1, max_size=6)
files = st.builds("{}/{}.{}".format, st.sampled_from("xyz"), pieces.map("".join),
                  st.sampled_from(["png", "jpg"]))  # fmt: skip


@given(st.lists(files, max_size=8))
def test_names_never_collide(paths):
    names = output_names([Path(path) for path in paths])
    assert len(names) == len(set(names)) == len(paths)
    assert not any("/" in name for name in names)


def test_names_made_unique_do_not_meet_a_given_one():
    paths = [Path(p) for p in ("a/x.png", "b/x.png", "x-png-1.png", "x.jpg")]
    assert len(set(output_names(paths))) == 4
