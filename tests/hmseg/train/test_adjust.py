"""Offsets of class scores: the mean IoU that they promise is counted again, pixel by pixel."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from hmseg.train.adjust import LARGEST, STEP, adjust, adjusted, best_offsets
from hmseg.train.checkpoint import Checkpoint
from hmseg.train.config import Stage, TrainConfig
from hmseg.train.confusion import Confusion
from hmseg.train.trained import trained_network
from hmseg.zoo import create_model
from lut.errors import UserError

CLASSES = ("road", "pole", "sky")


def miou(scores: Tensor, labels: Tensor, values: tuple[float, ...]) -> float:
    confusion = Confusion(len(scores))
    found = (scores + torch.tensor(values)[:, None]).argmax(0)
    confusion.add(labels.byte().numpy(), found.numpy())
    return confusion.miou


def pixels(classes: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A common class and rarer and rarer ones, found badly."""
    rng = np.random.default_rng(seed)
    labels = torch.from_numpy(rng.geometric(0.6, 3000).clip(max=classes) - 1)
    scores = torch.from_numpy(rng.normal(size=(classes, 3000))).float()
    scores += 1.5 * torch.nn.functional.one_hot(labels, classes).T
    return scores + torch.tensor([2.0, 1.0, *[0.0] * (classes - 2)])[:, None], labels


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_mean_iou_is_what_is_counted_and_no_single_offset_is_better(seed: int):
    scores, labels = pixels(seed=seed)
    found = best_offsets(scores, labels)
    assert found.before == pytest.approx(miou(scores, labels, (0.0,) * 4))
    assert found.after == pytest.approx(miou(scores, labels, found.values), abs=1e-6)
    assert found.after > found.before + 0.01
    assert sum(found.values) == pytest.approx(0, abs=1e-5)
    for k in range(4):
        for steps in (-16, -4, -1, 1, 4, 16):
            other = list(found.values)
            other[k] += steps * STEP
            assert miou(scores, labels, tuple(other)) <= found.after + 1e-5


def test_what_is_best_already_stays_as_it_is():
    labels = torch.arange(60) % 3
    scores = 9.0 * torch.nn.functional.one_hot(labels, 3).T
    found = best_offsets(scores, labels)
    assert found.values == (0.0, 0.0, 0.0)
    assert found.before == found.after == 1.0


def test_a_class_that_is_not_there_counts_nowhere():
    scores, labels = pixels(classes=3)
    more = torch.cat([scores, scores.new_full((1, scores.shape[1]), -50.0)])
    found, without = best_offsets(more, labels), best_offsets(scores, labels)
    assert found.after == pytest.approx(without.after)
    assert max(map(abs, found.values)) <= 2 * LARGEST


class Frames:
    """Noise with labels of which one class is rare."""

    def __len__(self) -> int:
        return 3

    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(index)
        labels = rng.choice([0, 1, 2, 255], (64, 96), p=[0.7, 0.05, 0.2, 0.05]).astype(np.uint8)
        return rng.integers(0, 256, (64, 96, 3), np.uint8), labels


def saved(path: Path, model: str) -> Path:
    torch.manual_seed(0)
    tensors = create_model(model, num_classes=3).state_dict()
    config = TrainConfig(model, "camvid", (Stage((64, 64), 2, 1),))
    average = {name: tensor.clone() for name, tensor in tensors.items()}
    checkpoint = Checkpoint(config, 1, CLASSES, tensors, average, {"a/b": torch.ones(1)})
    checkpoint.save(path)
    return path


@pytest.mark.parametrize("model", ["tiny-mrms", "tiny-mrms-a"])
def test_a_checkpoint_is_adjusted_and_says_so(tmp_path: Path, model: str):
    path = saved(tmp_path / "run.safetensors", model)
    result, offsets = adjust(path, Frames())
    assert offsets.after > offsets.before
    result.save(tmp_path / "out.safetensors")
    again = Checkpoint.load(tmp_path / "out.safetensors")
    assert again.offsets == pytest.approx(offsets.values)
    assert again.as_history()[-1]["offsets"] == pytest.approx(offsets.values, abs=1e-4)
    assert "offsets" not in Checkpoint.load(path).as_history()[-1]
    assert not again.optimizer
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        before, after = (
            trained_network(c, path).eval()(image) for c in (Checkpoint.load(path), again)
        )
        raw = trained_network(replace(again, average={}), path).eval()(image)
    shift = torch.tensor(offsets.values)[None, :, None, None]
    torch.testing.assert_close(after, before + shift, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(raw, after)


def test_adjusted_again_the_offsets_add_up(tmp_path: Path):
    first, offsets = adjust(saved(tmp_path / "run.safetensors", "tiny-mrms"), Frames())
    twice = adjusted(first, offsets)
    assert twice.offsets == pytest.approx([2 * value for value in offsets.values])


def test_what_cannot_be_adjusted(tmp_path: Path):
    path = saved(tmp_path / "run.safetensors", "tiny-mrms")
    checkpoint = Checkpoint.load(path)
    replace(checkpoint, config=replace(checkpoint.config, quantise="int8")).save(path)
    with pytest.raises(UserError, match="is quantised: adjust the float network"):
        adjust(path, Frames())
    with pytest.raises(UserError, match="no labelled pixel"):
        adjust(saved(path, "tiny-mrms"), Void())


class Void(Frames):
    def load(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        image, labels = super().load(index)
        return image, np.full_like(labels, 255)
