"""Cityscapes: leftImg8bit/SPLIT/CITY/*_leftImg8bit.png and gtFine/SPLIT/CITY/*_labelIds.png.

Cordts et al., CVPR 2016. Masks hold the original label ids; the 19 evaluated ones become train
ids, the rest is void. The test split's masks are withheld, so it has no labels here.
"""

from pathlib import Path

from hmseg.data.classes import CITYSCAPES
from hmseg.data.dataset import VOID, Frame, SegmentationData, files_by_key, pair

IMAGE_END, MASK_END = "_leftImg8bit.png", "_gtFine_labelIds.png"
LAYOUT = "Cityscapes (leftImg8bit/, gtFine/)"
# Label ids in the order of the train ids 0 to 18.
TRAIN_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
# Ids run from 0 to 33; the licence plate's -1 is stored as 255.
LABEL_MAP = (
    {label: VOID for label in (*range(34), 255)}
    | {label: train_id for train_id, label in enumerate(TRAIN_IDS)}
)  # fmt: skip


def cityscapes(root: Path, split: str) -> SegmentationData:
    """One split; raises UserError for a folder that is missing or half-copied."""
    images = files_by_key(root / "leftImg8bit" / split, IMAGE_END, LAYOUT)
    if split == "test":
        frames = tuple(Frame(path, None) for path in images.values())
    else:
        masks = root / "gtFine" / split
        frames = pair(images, files_by_key(masks, MASK_END, LAYOUT, among_others=True), masks)
    return SegmentationData(CITYSCAPES, split, frames, LABEL_MAP)
