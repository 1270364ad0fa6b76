"""A finished run is taken for what it is."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.compare_training import train
from hmseg.train.config import Stage, TrainConfig
from lut.errors import UserError
from tests.hmseg.data.folders import make_camvid


def test_a_finished_run_is_read_and_another_one_is_refused(tmp_path: Path):
    data, folder = make_camvid(tmp_path / "camvid"), tmp_path / "run"
    config = TrainConfig("tiny-mrms", "camvid", (Stage((64, 64), 2, 2),))
    miou = train(config, folder, data)
    written = (folder / "last.safetensors").stat().st_mtime_ns
    assert train(config, folder, data) == miou
    assert (folder / "last.safetensors").stat().st_mtime_ns == written
    with pytest.raises(UserError, match=r"holds another run \(seed: 0 there, 1 here\)"):
        train(replace(config, seed=1), folder, data)
