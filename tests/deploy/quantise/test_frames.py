"""Folders of frames."""

import numpy as np
import pytest

from deploy.graph.export import read_metadata
from deploy.quantise.frames import evenly, open_frames
from lut.errors import UserError
from tests.deploy.graphs import deployable, photo, segmenter
from tests.hmseg.data.folders import make_camvid, save


@pytest.fixture(scope="module")
def metadata(tmp_path_factory):
    return read_metadata(deployable(segmenter(classes=11), tmp_path_factory.mktemp("m")))


def folder_of(path, count, size=(64, 64)):
    for index in range(count):
        save(path / f"{index:03d}.png", photo(size, index))
    return path


def test_at_most_so_many_evenly_taken(tmp_path, metadata):
    frames = open_frames(folder_of(tmp_path / "f", 9), metadata, 5)
    assert [path.stem for path in frames.paths] == ["000", "002", "004", "006", "008"]
    assert len(open_frames(tmp_path / "f", metadata, 100)) == 9
    np.testing.assert_array_equal(frames.given(1), photo((64, 64), 2))
    assert not frames.labelled
    assert not frames.notes


@pytest.mark.parametrize(("count", "most"), [(7, 3), (367, 100), (101, 100), (5, 1), (1, 9)])
def test_evenly(count, most):
    found = evenly(count, most)
    assert len(found) == len(set(found)) == min(count, most)
    assert found == sorted(found)
    assert most == 1 or count == 1 or (found[0], found[-1]) == (0, count - 1)


def test_frames_of_other_sizes_are_resized_and_one_alone_is_told(tmp_path, metadata):
    save(tmp_path / "a.png", photo((48, 96)))
    frames = open_frames(tmp_path, metadata, 100)
    assert frames.given(0).shape == (64, 64, 3)
    assert "one frame alone" in frames.notes[0]
    assert "the frame is resized to 64x64" in frames.notes[1]
    save(tmp_path / "b.png", photo((64, 64)))
    assert open_frames(tmp_path, metadata, 100).notes == (
        "1 of 2 frames are resized to 64x64, as run does",
    )


def test_labels_lie_beside_the_frames_in_camvids_layout(tmp_path, metadata):
    frames = open_frames(make_camvid(tmp_path, train=3) / "train", metadata, 100)
    assert frames.labelled
    assert frames.truth(2).shape == (72, 96)
    assert set(np.unique(frames.truth(0))) <= {*range(11), 255}


def test_why_labels_are_not_used(tmp_path, metadata):
    root = make_camvid(tmp_path / "d", train=3)
    five = read_metadata(deployable(segmenter(classes=5), tmp_path))
    frames = open_frames(root / "train", five, 100)
    assert not frames.labelled
    assert "trainannot is not used: the network's classes are not CamVid's" in frames.notes[0]
    (root / "trainannot" / "0001TP_000001.png").unlink()
    frames = open_frames(root / "train", metadata, 100)
    assert "trainannot is not used: it has no 0001TP_000001.png" in frames.notes[0]


def test_what_is_no_folder_of_frames(tmp_path, metadata):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_bytes(b"no picture")
    cases = {
        "empty": "no PNG, JPEG, WebP, BMP or TIFF files in this folder",
        "missing": "no such folder",
        "broken": "a.png: not a PNG, JPEG, WebP, BMP or TIFF image",
        "broken/a.png": "a file; give the folder that the frames lie in",
    }
    for name, message in cases.items():
        with pytest.raises(UserError, match=message):
            open_frames(tmp_path / name, metadata, 100)
    with pytest.raises(UserError, match="0 frames: at least 1"):
        open_frames(tmp_path, metadata, 0)


def test_a_frame_that_is_cut_short_is_named_when_it_is_read(tmp_path, metadata):
    folder_of(tmp_path, 2)
    whole = (tmp_path / "001.png").read_bytes()
    (tmp_path / "001.png").write_bytes(whole[: len(whole) // 2])
    frames = open_frames(tmp_path, metadata, 100)
    with pytest.raises(UserError, match=r"001\.png: cannot be decoded"):
        frames.given(1)
