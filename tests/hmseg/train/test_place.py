"""What a run computed on is kept with it, one place after the other."""

import platform
from dataclasses import replace
from pathlib import Path

import torch

from hmseg.train.checkpoint import Checkpoint
from hmseg.train.config import Stage, TrainConfig
from hmseg.train.place import add_place, place_of


def test_the_cpu_and_its_torch():
    place = place_of(torch.device("cpu"))
    assert place == {"device": f"cpu ({platform.machine()})", "torch": torch.__version__}


def test_a_place_is_named_once_until_another_follows():
    here, there = {"device": "cpu", "torch": "1"}, {"device": "NVIDIA", "torch": "1"}
    places = ()
    for place in (here, here, there, there, here):
        places = add_place(places, place)
    assert places == (here, there, here)


def test_a_checkpoint_keeps_them(tmp_path: Path):
    config = TrainConfig("tiny-mrms", "camvid", (Stage((64, 64), 2, 3),))
    places = ({"device": "NVIDIA", "torch": "2"}, place_of(torch.device("cpu")))
    weights = {"w": torch.zeros(1)}
    saved = Checkpoint(config, 1, ("a", "b"), weights, {}, {}, places=places)
    saved.save(tmp_path / "run")
    loaded = Checkpoint.load(tmp_path / "run")
    assert loaded.places == places
    (run,) = loaded.as_history()
    assert run["computed_on"] == list(places)
    (older,) = replace(saved, places=()).as_history()
    assert older["computed_on"] == []
