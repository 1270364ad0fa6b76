"""CamVid, the 11-class release of 360x480 frames: train/ + trainannot/, val/ + valannot/.

Brostow, Fauqueur, Cipolla, Pattern Recognition Letters 30(2), 2009. Masks hold the class index,
11 is void.
"""

from pathlib import Path

from hmseg.data.classes import CAMVID
from hmseg.data.dataset import VOID, SegmentationData, files_by_key, pair

LABEL_MAP = {index: index for index in range(len(CAMVID))} | {len(CAMVID): VOID}
LAYOUT = "CamVid (train/, trainannot/, val/, valannot/)"


def camvid(root: Path, split: str) -> SegmentationData:
    """One split; raises UserError for a folder that is missing or half-copied."""
    masks = root / f"{split}annot"
    frames = pair(
        files_by_key(root / split, ".png", LAYOUT), files_by_key(masks, ".png", LAYOUT), masks
    )
    return SegmentationData(CAMVID, split, frames, LABEL_MAP)
