"""The data sets by name."""

import difflib
from collections.abc import Callable
from pathlib import Path

from hmseg.data.camvid import camvid
from hmseg.data.cityscapes import cityscapes
from hmseg.data.dataset import SegmentationData
from hmseg.data.lip import lip
from lut.errors import UserError

SPLITS = ("train", "val", "test")
DATASETS: dict[str, Callable[[Path, str], SegmentationData]] = {
    "camvid": camvid,
    "cityscapes": cityscapes,
    "lip": lip,
}


def open_dataset(name: str, root: Path, split: str) -> SegmentationData:
    """One split of a data set by name.

    Raises UserError for an unknown name or split, and for a folder that is missing or half-copied.
    """
    if name not in DATASETS:
        near = difflib.get_close_matches(name, DATASETS, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UserError(f"unknown data set {name!r}: {hint}there are {', '.join(DATASETS)}")
    if split not in SPLITS:
        raise UserError(f"unknown split {split!r}; choose {', '.join(SPLITS)}")
    return DATASETS[name](root, split)
