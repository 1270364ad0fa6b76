"""The scales that ship with released weights: what is in the files."""

import json

import pytest

from deploy.quantise.shipped_file import FOLDER, has_scales, read_scales
from hmseg.pretrained import list_released

SHIPPED = {tuple(path.stem.rsplit("-", 1)) for path in FOLDER.glob("*.json")}


def test_scales_ship_for_released_weights() -> None:
    assert has_scales("tiny-hmseg")
    assert set(list_released()) >= SHIPPED


@pytest.mark.parametrize(("model", "data"), sorted(SHIPPED))
def test_they_are_of_exactly_these_weights(model: str, data: str) -> None:
    scales = read_scales(model, data)
    card = json.loads((FOLDER.parent / f"{model}-{data}.json").read_text())
    assert scales.weights == card["sha256"]
    assert scales.made_with["split"] == "train"  # nobody's validation frames
    assert all(grid.scale > 0 and 0 <= grid.zero <= 255 for grid in scales.maps.values())
