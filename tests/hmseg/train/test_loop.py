"""The trainer's own parts that a run as a whole does not show."""

from pathlib import Path

import pytest
import torch

from hmseg.data.dataset import InMemory
from hmseg.data.registry import open_dataset
from hmseg.train.config import Stage, TrainConfig
from hmseg.train.loop import StepReport, Trainer
from lut.errors import UserError
from tests.hmseg.data.folders import make_camvid


@pytest.mark.parametrize("channels_last", [True, False])
def test_the_layout_that_is_asked_for_reaches_the_convolutions(tmp_path: Path, channels_last: bool):
    frames = open_dataset("camvid", make_camvid(tmp_path / "camvid"), "train")
    config = TrainConfig(
        "tiny-mrms", "camvid", (Stage((64, 64), 2, 1),), channels_last=channels_last
    )
    trainer = Trainer(config, InMemory(frames), frames.classes.names)
    seen: list[bool] = []
    inner = trainer.model.get_submodule("stages.s2.0.expand.0")
    inner.register_forward_hook(
        lambda _module, _given, output: seen.append(
            output.is_contiguous(memory_format=torch.channels_last)
        )
    )
    trainer.run(lambda _report: None)
    assert seen == [channels_last]


def test_the_average_is_the_loop_over_its_tensors_bit_for_bit(tmp_path: Path):
    frames = open_dataset("camvid", make_camvid(tmp_path / "camvid"), "train")
    config = TrainConfig("tiny-mrms", "camvid", (Stage((64, 64), 2, 3),), ema_decay=0.9)
    trainer = Trainer(config, InMemory(frames), frames.classes.names)
    assert trainer.average is not None
    expected = {name: tensor.clone() for name, tensor in trainer.average.state_dict().items()}

    def follow(report: StepReport) -> None:
        decay = min(0.9, (1 + report.step) / (10 + report.step))
        for name, value in trainer.model.state_dict().items():
            if value.is_floating_point():
                expected[name].lerp_(value, 1 - decay)
            else:
                expected[name].copy_(value)

    trainer.run(follow)
    for name, tensor in trainer.average.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_a_peer_learns_from_all_of_its_outputs(tmp_path: Path):
    frames = open_dataset("camvid", make_camvid(tmp_path / "camvid"), "train")
    config = TrainConfig("pidnet-s", "camvid", (Stage((64, 64), 2, 1),), learning_rate=1e-3)
    trainer = Trainer(config, InMemory(frames), frames.classes.names)
    before = {name: tensor.clone() for name, tensor in trainer.model.named_parameters()}
    losses: list[float] = []
    trainer.run(lambda report: losses.append(report.loss))
    assert losses[0] > 0
    for name, tensor in trainer.model.named_parameters():
        assert not torch.equal(tensor, before[name]), name
    again = Trainer(config, InMemory(frames), frames.classes.names)
    again.begin_with(trainer.checkpoint(), tmp_path)
    with pytest.raises(UserError, match="Lite0's weights: only our own networks take that"):
        again.begin_with_lite0()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"auxiliary_weight": 0.1}, "auxiliary weight is of our own networks"),
        ({"auxiliary_every": 2}, "auxiliary every is of our own networks"),
        ({"backbone_rate": 0.5}, "backbone rate is of our own networks"),
        ({"teacher": "mrms 0"}, "a teacher is of our own networks"),
    ],
)
def test_what_only_our_own_networks_take_is_refused(tmp_path: Path, options, message):
    frames = open_dataset("camvid", make_camvid(tmp_path / "camvid"), "train")
    config = TrainConfig("enet", "camvid", (Stage((64, 64), 2, 1),), **options)
    with pytest.raises(UserError, match=message):
        Trainer(config, InMemory(frames), frames.classes.names)


def test_exhausted_memory_is_one_line(tmp_path: Path):
    frames = open_dataset("camvid", make_camvid(tmp_path / "camvid"), "train")
    config = TrainConfig("tiny-mrms", "camvid", (Stage((64, 64), 2, 1),))
    trainer = Trainer(config, InMemory(frames), frames.classes.names)
    # The allocator's own refusal, of more than any machine has.
    trainer.model.register_forward_hook(lambda *_: torch.empty(1 << 50))
    with pytest.raises(UserError, match=r"out of memory at a batch of 2 crops of 64x64; .*smaller"):
        trainer.run(lambda _report: None)


def test_another_error_stays_what_it_is(tmp_path: Path):
    frames = open_dataset("camvid", make_camvid(tmp_path / "camvid"), "train")
    config = TrainConfig("tiny-mrms", "camvid", (Stage((64, 64), 2, 1),))
    trainer = Trainer(config, InMemory(frames), frames.classes.names)
    trainer.model.register_forward_hook(lambda *_: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        trainer.run(lambda _report: None)


def test_pixels_of_the_steps_so_far():
    config = TrainConfig("tiny-mrms", "camvid", (Stage((10, 20), 2, 3), Stage((20, 20), 1, 4)))
    assert [config.pixels_after(step) for step in (0, 1, 3, 4, 7)] == [0, 400, 1200, 1600, 2800]


def test_two_runs_that_differ_name_another_difference_than_their_stages_first():
    first = TrainConfig("tiny-mrms", "camvid", (Stage((10, 20), 2, 3),), seed=1)
    longer = TrainConfig("tiny-mrms", "camvid", (Stage((10, 20), 2, 5),), seed=1)
    other = TrainConfig("tiny-mrms", "camvid", (Stage((10, 20), 2, 5),), seed=2)
    assert other.difference(first) == "seed: 1 there, 2 here"
    assert longer.difference(first) == "stages: ['10x20:2:3'] there, ['10x20:2:5'] here"
