from dataclasses import replace

import pytest

from hmseg.data.fingerprint import check_same, fingerprint, parse_fingerprints
from hmseg.data.registry import open_dataset
from lut.errors import UserError

from .folders import make_camvid


@pytest.fixture
def split(tmp_path):
    return open_dataset("camvid", make_camvid(tmp_path), "train")


def refused(before, now, message):
    with pytest.raises(UserError, match=f"run: the train split is not the one.*{message}"):
        check_same({"train": before}, {"train": now}, "run")


def test_the_same_data_wherever_it_lies(split, tmp_path):
    before = fingerprint(split)
    assert list(before) == [frame.name for frame in split.frames]
    check_same({"train": before}, {"train": fingerprint(split)}, "run")
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    again = open_dataset("camvid", moved, "train")
    check_same({"train": before}, {"train": fingerprint(again)}, "run")


@pytest.mark.parametrize("which", ["image", "mask"])
def test_a_changed_frame(split, which):
    before = fingerprint(split)
    path = getattr(split.frames[1], which)
    path.write_bytes(path.read_bytes() + b"\0")
    refused(before, fingerprint(split), f"{split.frames[1].name} changed")


def test_other_frames(split):
    before = fingerprint(split)
    less = fingerprint(replace(split, frames=split.frames[1:]))
    refused(before, less, f"it had {len(before)} frames, there are {len(before) - 1}")
    turned = fingerprint(replace(split, frames=split.frames[::-1]))
    refused(before, turned, "in another order")
    others = {f"x{name}": digest for name, digest in before.items()}
    refused(before, others, f"{split.frames[0].name} is gone")


def test_a_checkpoint_that_has_none_is_taken(split):
    check_same({}, {"train": fingerprint(split)}, "run")


def test_other_splits(split):
    """Of which none could be compared."""
    own = fingerprint(split)
    for now in ({}, {"val": own}, {"train": own, "val": own}):
        with pytest.raises(UserError, match="run: it began with the splits train, these are"):
            check_same({"train": own}, now, "run")


@pytest.mark.parametrize("value", [None, 1, [], {"train": 1}, {"train": {"a": 1}}, {"a": ["b"]}])
def test_what_is_no_fingerprint(value):
    with pytest.raises(UserError, match="not texts by frame"):
        parse_fingerprints(value)
    assert parse_fingerprints({"train": {"a": "b"}}) == {"train": {"a": "b"}}
