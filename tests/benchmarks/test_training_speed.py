"""The figures of a training's speed, at a size at which only their form is of interest."""

import json
from pathlib import Path

import pytest

from benchmarks.training_speed import PARTS, main
from lut.errors import UserError
from tests.hmseg.data.folders import make_camvid

SMALL = ("--crop", "64x64", "--search-crop", "64x64", "--batch", "2", "--warm", "1", "--steps", "3",
         "--models", "tiny-mrms", "tiny-mrms-a")  # fmt: skip


def test_every_figure_is_there_and_adds_up(tmp_path: Path, capsys):
    data, output = make_camvid(tmp_path / "camvid"), tmp_path / "speed.json"
    main([*SMALL, "--data", str(data), "-o", str(output)])
    result = json.loads(output.read_text())
    assert {"date", "device", "torch", "cpu"} <= set(result["provenance"])
    assert result["options"]["batch"] == "2"
    tiny, other = result["rows"]
    step = tiny["step"]
    assert 0 < step["min_ms"] <= step["median_ms"] <= step["max_ms"]
    assert tiny["images_per_s"] == pytest.approx(2e3 / step["median_ms"])
    assert list(tiny["parts"]) == list(PARTS)
    for times in tiny["parts"].values():
        assert 0 <= times["host_ms"] <= times["done_ms"]
    assert tiny["with_loader"]["images_per_s"] > 0
    assert 0 <= tiny["with_loader"]["waited_share"] <= 1
    assert tiny["search_step"]["median_ms"] > 0
    assert other["search_step"] is None  # there is no search of its space
    assert tiny["peak_gib"] is None  # of a GPU only
    out = capsys.readouterr().out
    assert f"{tiny['images_per_s']:.1f}" in out
    assert "backward" in out


def test_without_data_there_is_no_loader(capsys):
    main([*SMALL[:-2], "tiny-mrms", "--precision", "float32"])
    assert "tiny-mrms" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--models", "mrsm"), "unknown model"),
        (("--steps", "0"), "must be at least 1"),
        (("--batch", "1"), "batch norm needs at least 2 images"),
        (("--crop", "9"), "write HEIGHTxWIDTH"),
        (("--device", "tpu"), "choose cpu or cuda"),
        (("--data", "nowhere"), "no such folder"),
        (("-o", "/dev/null"), "not a regular file"),
    ],
)
def test_mistakes(options, message):
    with pytest.raises(UserError, match=message):
        main([*SMALL, *options])
