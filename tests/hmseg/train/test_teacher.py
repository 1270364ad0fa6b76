"""A teacher from a checkpoint: what it says, what it is called, what it is not."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hmseg.data.dataset import InMemory
from hmseg.data.registry import open_dataset
from hmseg.train.config import Stage, TrainConfig
from hmseg.train.loop import Trainer
from hmseg.train.teacher import Teacher, digest
from hmseg.zoo import create_model
from lut.errors import UserError
from tests.hmseg.data.folders import make_camvid

CONFIG = TrainConfig(
    "tiny-mrms", "camvid", (Stage((64, 64), 2, 2),), ema_decay=0.9, learning_rate=1e-3
)


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory):
    return open_dataset("camvid", make_camvid(tmp_path_factory.mktemp("camvid")), "train")


@pytest.fixture(scope="module")
def path(frames, tmp_path_factory: pytest.TempPathFactory) -> Path:
    trainer = Trainer(CONFIG, InMemory(frames), frames.classes.names)
    trainer.run(lambda _: None)
    path = tmp_path_factory.mktemp("run") / "last.safetensors"
    trainer.checkpoint().save(path)
    return path


def learn(frames, teacher: Teacher | None, **changes) -> Trainer:
    config = replace(CONFIG, seed=1, teacher=teacher.name if teacher else None, **changes)
    trainer = Trainer(config, InMemory(frames), frames.classes.names, teacher=teacher)
    trainer.run(lambda _: None)
    return trainer


@torch.no_grad()
def test_it_says_what_its_network_says(frames, path: Path):
    teacher = Teacher.load(path, frames.classes.names)
    images = torch.randn(1, 3, 64, 96)
    lesson = teacher.ask(images)
    assert lesson.scores.shape == (1, 11, 8, 12)
    assert [tuple(m.shape) for m in lesson.maps] == [(1, 48, 4, 6), (1, 160, 2, 3)]
    large = torch.nn.functional.interpolate(
        lesson.scores, (64, 96), mode="bilinear", align_corners=False
    )
    torch.testing.assert_close(large, teacher.network(images))
    assert not any(parameter.requires_grad for parameter in teacher.network.parameters())


def test_its_weights_are_the_average_and_its_name_holds_them(frames, path: Path):
    teacher = Teacher.load(path, frames.classes.names)
    model, sha = teacher.name.split()
    assert model == "tiny-mrms"
    network = create_model("tiny-mrms", num_classes=11)
    assert digest(network) != sha
    network.load_state_dict(teacher.network.state_dict())
    assert digest(network) == sha == teacher.about["sha256"]
    assert teacher.about["runs"][-1]["recipe"]["model"] == "tiny-mrms"


def test_a_student_learns_from_it_and_leaves_it_alone(frames, path: Path):
    teacher = Teacher.load(path, frames.classes.names)
    alone, silent = learn(frames, None), learn(frames, teacher, soft_weight=0.0)
    for name, tensor in alone.model.state_dict().items():
        assert torch.equal(tensor, silent.model.state_dict()[name]), name
    taught = learn(frames, teacher, soft_weight=1.0, feature_weight=1.0)
    name = "head.classify.1.weight"
    assert not torch.equal(taught.model.state_dict()[name], alone.model.state_dict()[name])
    assert digest(teacher.network) == teacher.about["sha256"]
    assert taught.before == (teacher.about,)


def test_a_resumed_run_asks_for_its_teacher(frames, path: Path):
    teacher = Teacher.load(path, frames.classes.names)
    taught = learn(frames, teacher).checkpoint()
    alone = Trainer(replace(CONFIG, seed=1), InMemory(frames), frames.classes.names)
    with pytest.raises(UserError, match=rf"teacher: {teacher.name} there, None here"):
        alone.resume(taught, path)
    again = Trainer(taught.config, InMemory(frames), frames.classes.names, teacher=teacher)
    again.resume(taught, path)
    assert again.before == (teacher.about,)


def test_other_classes_are_refused(path: Path):
    with pytest.raises(UserError, match="a teacher of other classes"):
        Teacher.load(path, ("sky", "road"))
