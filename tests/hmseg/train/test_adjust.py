"""Offsets of class scores: the mean IoU that they promise is counted again, pixel by pixel."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from hmseg.data.classes import CAMVID
from hmseg.data.dataset import VOID, SegmentationData
from hmseg.data.registry import open_dataset
from hmseg.train import adjust as adjust_module
from hmseg.train.adjust import STEP, adjust, adjusted, best_offsets
from hmseg.train.checkpoint import Checkpoint
from hmseg.train.config import Stage, TrainConfig
from hmseg.train.confusion import Confusion
from hmseg.train.metrics import torch_predictor
from hmseg.train.trained import trained_network
from hmseg.zoo import create_model
from lut.errors import UserError
from tests.hmseg.data.folders import make_camvid


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
    for k in range(3):  # what the class that is not there got is a constant of the others
        difference = found.values[k] - found.values[0]
        assert difference == pytest.approx(without.values[k] - without.values[0], abs=1e-5)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SegmentationData:
    return open_dataset("camvid", make_camvid(tmp_path_factory.mktemp("camvid")), "train")


def saved(path: Path, model: str) -> Path:
    torch.manual_seed(0)
    tensors = create_model(model, num_classes=11).state_dict()
    config = TrainConfig(model, "camvid", (Stage((64, 64), 2, 1),))
    average = {name: tensor.clone() for name, tensor in tensors.items()}
    checkpoint = Checkpoint(config, 1, CAMVID.names, tensors, average, {"a/b": torch.ones(1)})
    checkpoint.save(path)
    return path


@pytest.mark.parametrize("model", ["tiny-mrms", "tiny-mrms-a"])
def test_a_checkpoint_is_adjusted_and_says_so(tmp_path: Path, data: SegmentationData, model: str):
    path = saved(tmp_path / "run.safetensors", model)
    result, offsets = adjust(path, data)
    for checkpoint, reached in ((Checkpoint.load(path), offsets.before), (result, offsets.after)):
        assert counted(checkpoint, path, data) == pytest.approx(reached, abs=1e-4)
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


def counted(checkpoint: Checkpoint, path: Path, data: SegmentationData) -> float:
    """The mean IoU of every fourth row and column of its labels."""
    predict, confusion = torch_predictor(trained_network(checkpoint, path)), Confusion(11)
    for index in range(len(data)):
        image, labels = data.load(index)
        confusion.add(labels[2::4, 2::4], predict(image)[2::4, 2::4])
    return confusion.miou


def test_adjusted_again_the_offsets_add_up(tmp_path: Path, data: SegmentationData):
    first, offsets = adjust(saved(tmp_path / "run.safetensors", "tiny-mrms"), data)
    twice = adjusted(first, offsets)
    assert twice.offsets == pytest.approx([2 * value for value in offsets.values])


def test_of_a_large_split_fewer_pixels_are_looked_at(data, monkeypatch):
    height, width = data.load_labels(0).shape
    monkeypatch.setattr(adjust_module, "MOST_BYTES", len(data) * height * width * 11 * 4 // 100)
    assert adjust_module._every(data) == 16
    _, seen = adjust_module._scores(create_model("tiny-mrms", num_classes=11), data)
    labels = [data.load_labels(index)[8::16, 8::16] for index in range(len(data))]
    wanted = [value for each in labels for value in each[each != VOID].tolist()]
    assert seen.tolist() == wanted


def test_what_cannot_be_adjusted(tmp_path: Path, data: SegmentationData):
    path = saved(tmp_path / "run.safetensors", "tiny-mrms")
    checkpoint = Checkpoint.load(path)
    replace(checkpoint, classes=checkpoint.classes[::-1]).save(path)
    with pytest.raises(UserError, match="trained for other classes"):
        adjust(path, data)
    checkpoint.save(path)
    with pytest.raises(UserError, match="no labelled pixel"):
        adjust(path, replace(data, label_map=dict.fromkeys(range(12), 255)))
    replace(checkpoint, config=replace(checkpoint.config, quantise="int8")).save(path)
    with pytest.raises(UserError, match="is quantised: adjust the float network"):
        adjust(path, data)
    peer = create_model("fast-scnn", num_classes=11).state_dict()
    config = replace(checkpoint.config, model="fast-scnn")
    replace(checkpoint, config=config, weights=peer, average={}).save(path)
    with pytest.raises(UserError, match="only our own networks are adjusted, not fast-scnn"):
        adjust(path, data)
