"""Which run's validation a card quotes, and which releases are refused."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.release_weights import _measured, _passes
from hmseg.data.classes import CAMVID
from hmseg.train.checkpoint import Checkpoint
from hmseg.train.config import Stage, TrainConfig
from lut.errors import UserError

ALONE = TrainConfig("tiny-mrms", "camvid", (Stage((64, 64), 2, 4),), seed=3)
PATH = Path("run")
WEIGHTS = {"weight": torch.ones(1)}


def saved(path: Path, **changes: object) -> tuple[Checkpoint, Path]:
    checkpoint = replace(Checkpoint(ALONE, 3, CAMVID.names, WEIGHTS, {}, {}), **changes)  # type: ignore[arg-type]
    checkpoint.save(path)
    return checkpoint, path


BOTH = Checkpoint(replace(ALONE, with_validation=True), 4, CAMVID.names, {}, {}, {})


def test_a_run_on_the_training_split_is_its_own_measure(tmp_path: Path):
    alone, path = saved(tmp_path / "alone")
    assert _measured(alone, path, None) is alone
    with pytest.raises(UserError, match="was validated itself"):
        _measured(alone, path, path)
    for before in (BOTH.as_history(), ({"teacher": "mrms", "runs": list(BOTH.as_history())},)):
        with pytest.raises(UserError, match="learned from the validation split: train it"):
            _measured(replace(alone, before=before), path, None)


def test_a_run_on_both_splits_quotes_its_like(tmp_path: Path):
    _, path = saved(tmp_path / "alone")
    assert _measured(BOTH, PATH, path).step == 3
    with pytest.raises(UserError, match="name its like by --validated"):
        _measured(BOTH, PATH, None)


@pytest.mark.parametrize(
    ("both", "alone", "message"),
    [
        ({}, {"config": replace(ALONE, seed=4)}, r"settings \(seed: 3 there, 4 here\)"),
        ({"before": ({"steps": 1},)}, {}, "first weights"),
        ({}, {"frames": {"train": {"a": "b"}}}, "frames"),
        ({"offsets": (0.5,) * 11}, {}, "one of the two is adjusted"),
        ({"step": 3}, {}, "it is not finished"),
    ],
)
def test_runs_that_are_not_alike(tmp_path: Path, both: dict, alone: dict, message: str):
    _, path = saved(tmp_path / "alone", **alone)
    with pytest.raises(UserError, match=message):
        _measured(replace(BOTH, **both), PATH, path)


def test_passes_are_over_the_frames_that_each_run_learned_from():
    alone = {"images_seen": 734, "recipe": {}}
    both = {"images_seen": 468, "recipe": {"with_validation": True}}
    assert _passes(({"images_seen": 0}, alone, both), 367, 468) == 3
