"""Cityscapes, LIP and CamVid read from generated folders, and every kind of broken folder."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hmseg.data.classes import CITYSCAPES
from hmseg.data.dataset import InMemory, SegmentationData, open_source
from hmseg.data.registry import open_dataset
from lut.errors import UserError
from tests.conditions import CAMVID

from .folders import SIZE, make_camvid, make_cityscapes, make_lip, save


def test_cityscapes_maps_label_ids_to_train_ids(tmp_path: Path):
    data = open_dataset("cityscapes", make_cityscapes(tmp_path), "train")
    assert [f.image.parent.name for f in data.frames] == ["aachen"] * 2 + ["ulm"] * 2
    # The published table, by name, written down a second time.
    published = {
        7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole",
        19: "traffic light", 20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky",
        24: "person", 25: "rider", 26: "car", 27: "truck", 28: "bus", 31: "train",
        32: "motorcycle", 33: "bicycle",
    }  # fmt: skip
    for index, frame in enumerate(data.frames):
        assert frame.mask is not None
        raw = np.asarray(Image.open(frame.mask))
        _, labels = data.load(index)
        for value in np.unique(raw):
            expected = CITYSCAPES.names.index(published[value]) if value in published else 255
            assert (labels[raw == value] == expected).all()


@pytest.mark.parametrize(("name", "make"), [("cityscapes", make_cityscapes), ("lip", make_lip)])
def test_the_test_split_has_images_and_no_labels(tmp_path: Path, name: str, make):
    data = open_dataset(name, make(tmp_path), "test")
    assert len(data) == 1
    assert data.load_image(0).shape == (*SIZE, 3)
    with pytest.raises(UserError, match="the test split has no labels"):
        data.load(0)


def test_lip_pairs_jpeg_images_with_png_masks(tmp_path: Path):
    data = open_dataset("lip", make_lip(tmp_path), "train")
    assert [frame.name for frame in data.frames] == ["77_12", "99_1"]
    _, labels = data.load(0)
    assert labels.max() < 20
    np.testing.assert_array_equal(labels, np.asarray(Image.open(data.frames[0].mask)))


def test_camvid_turns_index_11_into_void(tmp_path: Path):
    data = open_dataset("camvid", make_camvid(tmp_path), "train")
    raw = np.asarray(Image.open(data.frames[0].mask))
    image, labels = data.load(0)
    np.testing.assert_array_equal(data.load_labels(0), labels)
    assert image.dtype == labels.dtype == np.uint8
    assert (labels[raw == 11] == 255).all()
    assert (labels[raw < 11] == raw[raw < 11]).all()


@CAMVID.mark
def test_real_camvid():
    data = open_dataset("camvid", Path(os.environ["HMSEG_DATA"]), "val")
    assert len(data) == 101
    image, labels = data.load(0)
    assert image.shape == (360, 480, 3)
    assert set(np.unique(labels)) <= {*range(11), 255}


def broken(tmp_path: Path, damage) -> tuple[SegmentationData, Path]:
    root = make_camvid(tmp_path)
    mask = root / "trainannot" / "0001TP_000002.png"
    damage(mask)
    return open_dataset("camvid", root, "train"), mask


def test_a_missing_folder_is_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"nowhere/train: no such folder; the data's folder"):
        open_dataset("camvid", tmp_path / "nowhere", "train")
    shutil.rmtree(make_cityscapes(tmp_path) / "gtFine")
    with pytest.raises(UserError, match=r"gtFine/val: no such folder"):
        open_dataset("cityscapes", tmp_path, "val")


def test_an_empty_folder_is_named(tmp_path: Path):
    (tmp_path / "train").mkdir()
    with pytest.raises(UserError, match=r"train: no \.png files"):
        open_dataset("camvid", tmp_path, "train")


def test_a_half_copied_folder_names_the_frame(tmp_path: Path):
    with pytest.raises(UserError, match=r"0001TP_000002\.png: no mask for it in .*trainannot"):
        broken(tmp_path, Path.unlink)
    make_camvid(tmp_path)
    (tmp_path / "train" / "0001TP_000004.png").unlink()
    with pytest.raises(UserError, match=r"annot/0001TP_000004\.png: no image for this mask"):
        open_dataset("camvid", tmp_path, "train")


def test_frames_in_several_folders_may_be_called_the_same(tmp_path: Path):
    root, again = make_camvid(tmp_path / "a", train=2), make_camvid(tmp_path / "b", train=2)
    for part in ("train", "trainannot"):
        (again / part).rename(root / part / "evening")
    frames = open_dataset("camvid", root, "train").frames
    assert len(frames) == 4
    for frame in frames:
        assert frame.image.relative_to(root / "train") == frame.mask.relative_to(
            root / "trainannot"
        )
    next((root / "trainannot" / "evening").iterdir()).unlink()
    with pytest.raises(UserError, match=r"evening/.*no mask for it"):
        open_dataset("camvid", root, "train")


def test_two_files_of_one_name_are_refused(tmp_path: Path):
    """None takes the other's place without a word."""
    root = make_camvid(tmp_path, train=1)
    (image,) = (root / "train").iterdir()
    shutil.copy(image, image.with_suffix(".PNG"))
    with pytest.raises(UserError, match=r"\.png and .*\.PNG have the same name"):
        open_dataset("camvid", root, "train")


def test_a_file_cut_short_is_named(tmp_path: Path):
    data, mask = broken(tmp_path, lambda p: p.write_bytes(p.read_bytes()[:90]))
    with pytest.raises(UserError, match=f"{mask}: cannot be decoded"):
        InMemory(data)


def test_a_mask_of_another_size_is_named_before_training(tmp_path: Path):
    data, mask = broken(tmp_path, lambda p: save(p, np.zeros((10, 20), np.uint8)))
    for read in (
        open_source, lambda d: d.load(2), lambda d: d.load_labels(2),
        lambda d: open_source(d, limit_bytes=0),
    ):  # fmt: skip
        with pytest.raises(UserError, match=f"{mask}: the mask is 10x20, its image 72x96"):
            read(data)


def test_a_mask_with_unknown_ids_is_named(tmp_path: Path):
    data, mask = broken(tmp_path, lambda p: save(p, np.full(SIZE, 77, np.uint8)))
    with pytest.raises(UserError, match=f"{mask}: unknown label ids 77; is this a camvid mask"):
        open_source(data)


def test_a_coloured_mask_is_named(tmp_path: Path):
    data, mask = broken(tmp_path, lambda p: save(p, np.zeros((*SIZE, 3), np.uint8)))
    with pytest.raises(UserError, match=f"{mask}: expected a mask of one 8-bit channel"):
        data.load(2)


def test_a_large_split_is_read_from_disk(tmp_path: Path):
    data = open_dataset("camvid", make_camvid(tmp_path), "train")
    assert open_source(data, limit_bytes=10) is data
    small = open_source(data)
    assert isinstance(small, InMemory)
    np.testing.assert_array_equal(small.load(3)[0], data.load(3)[0])


def test_an_unknown_name_and_split_get_advice(tmp_path: Path):
    with pytest.raises(UserError, match="did you mean camvid"):
        open_dataset("canvid", tmp_path, "train")
    with pytest.raises(UserError, match="choose train, val, test"):
        open_dataset("camvid", tmp_path, "dev")
