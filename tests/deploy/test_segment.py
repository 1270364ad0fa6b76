from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from deploy.images import resize_image, resize_labels
from deploy.resolution import Resolution
from deploy.runtime import load
from deploy.segment import output_names, segment_file
from lut.errors import UserError
from tests.deploy.graphs import photo


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
