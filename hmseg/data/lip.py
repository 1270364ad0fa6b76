"""LIP, Look Into Person: 20 classes of single-person parsing.

Gong et al., CVPR 2017. TrainVal_images/{train,val}_images/*.jpg with masks of the same stem in
TrainVal_parsing_annotations/{train,val}_segmentations/*.png; Testing_images/testing_images has
no labels. Masks hold the class index; 255 is void.
"""

from pathlib import Path

from hmseg.data.classes import LIP
from hmseg.data.dataset import VOID, Frame, SegmentationData, files_by_key, pair

LABEL_MAP = {index: index for index in range(len(LIP))} | {VOID: VOID}
LAYOUT = "LIP (TrainVal_images/, TrainVal_parsing_annotations/)"


def lip(root: Path, split: str) -> SegmentationData:
    """One split; raises UserError for a folder that is missing or half-copied."""
    if split == "test":
        images = files_by_key(root / "Testing_images" / "testing_images", ".jpg", LAYOUT)
        frames = tuple(Frame(path, None) for path in images.values())
    else:
        images = files_by_key(root / "TrainVal_images" / f"{split}_images", ".jpg", LAYOUT)
        masks = root / "TrainVal_parsing_annotations" / f"{split}_segmentations"
        frames = pair(images, files_by_key(masks, ".png", LAYOUT), masks)
    return SegmentationData(LIP, split, frames, LABEL_MAP)
