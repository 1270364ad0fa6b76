"""Released weights: written and read back, cards complete, and clear refusals."""

import json
from pathlib import Path

import pytest
import torch

import hmseg
from hmseg.mend import Train
from hmseg.pretrained import FOLDER, list_released, load_released, save_released
from hmseg.zoo import create_model
from lut.errors import UserError


def test_weights_and_card_round_trip(tmp_path: Path):
    model = create_model("tiny-mrms", num_classes=11)
    names = [f"class {index}" for index in range(11)]
    save_released("tiny-mrms", "camvid", model.state_dict(), {"classes": names}, tmp_path)
    released = load_released("tiny-mrms", "camvid", tmp_path)
    assert released.num_classes == 11
    assert all(torch.equal(released.tensors[k], v) for k, v in model.state_dict().items())
    assert list_released(tmp_path) == [("tiny-mrms", "camvid")]


def test_damaged_weights_are_named(tmp_path: Path):
    model = create_model("tiny-mrms", num_classes=2)
    path = save_released("tiny-mrms", "x", model.state_dict(), {"classes": ["a", "b"]}, tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match="damaged"):
        load_released("tiny-mrms", "x", tmp_path)
    path.unlink()
    with pytest.raises(UserError, match="damaged"):
        load_released("tiny-mrms", "x", tmp_path)


@pytest.mark.parametrize("name", ["mrms-a", "tiny-mrms"])
def test_weights_that_do_not_exist_are_said_not_to(name: str):
    with pytest.raises(UserError, match=f"there are no 'imagenet' weights of {name}") as found:
        create_model(name, pretrained="imagenet")
    assert found.value.mend == Train(name, "imagenet")


@pytest.mark.parametrize(("name", "data"), list_released())
def test_every_released_network_loads_and_its_card_is_complete(name: str, data: str):
    model = hmseg.create_model(name, pretrained=data).eval()
    card = json.loads((FOLDER / f"{name}-{data}.json").read_text())
    needed = ("classes", "trained_on", "validation", "runs", "epochs", "seed",
              "must_not_be_used_for", "made_with")  # fmt: skip
    assert all(card[key] for key in needed if key != "seed")
    with torch.inference_mode():
        logits = model(torch.zeros(1, 3, 64, 96))
    assert logits.shape == (1, len(card["classes"]), 64, 96)
    with pytest.raises(UserError, match=f"have {len(card['classes'])} classes, not 19"):
        hmseg.create_model(name, pretrained=data, num_classes=19)
