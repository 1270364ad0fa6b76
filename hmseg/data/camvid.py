"""CamVid, the 11-class release of 360x480 frames: train/ + trainannot/, val/ + valannot/.

Brostow, Fauqueur, Cipolla, Pattern Recognition Letters 30(2), 2009. Masks hold the class index,
11 is void.
"""

from pathlib import Path

from hmseg.data.classes import CAMVID
from hmseg.data.dataset import VOID, SegmentationData, pair_folders
from lut.errors import UserError

SPLITS = ("train", "val", "test")


def camvid(root: Path, split: str) -> SegmentationData:
    """One split of the release; raises UserError for a folder that is missing or half-copied."""
    if split not in SPLITS:
        raise UserError(f"camvid has no split {split!r}; choose {', '.join(SPLITS)}")
    frames = pair_folders(
        root / split, root / f"{split}annot", "CamVid (train/, trainannot/, val/, valannot/)"
    )
    return SegmentationData(CAMVID, split, frames, label_map=(*range(len(CAMVID)), VOID))
