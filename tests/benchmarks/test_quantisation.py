"""The whole command on two small frames."""

import json
import sys

from benchmarks import quantisation
from tests.hmseg.data.folders import make_camvid


def test_a_small_split(tmp_path, monkeypatch, capsys):
    root = make_camvid(tmp_path / "camvid", train=2, val=1)
    out = tmp_path / "q.json"
    arguments = ["--data", str(root), "--models", "tiny-mrms", "--frames", "2", "-o", str(out)]
    monkeypatch.setattr(sys, "argv", ["quantisation", *arguments])
    monkeypatch.setattr(quantisation, "MOST_LOST", 100)
    assert quantisation.main() == 0
    (found,) = json.loads(out.read_text())["networks"]
    assert found["resolution"] == "72x96"
    assert found["frames"] == 1
    assert found["report"]["fp32"]["miou"] is None  # it calibrates without a look at masks
    assert found["report"]["frames"] == 2
    assert found["bytes"]["int8"] < 0.5 * found["bytes"]["fp32"]
    assert f"{found['miou']['int8']:.2f}" in capsys.readouterr().out
    monkeypatch.setattr(quantisation, "MOST_LOST", -100)
    monkeypatch.setattr(quantisation, "measure", lambda *_: found)
    assert quantisation.main() == 1
