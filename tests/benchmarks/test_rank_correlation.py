"""The rank correlation of inherited and trained mIoU: two tiny networks, and figures by hand."""

import json
import sys
from math import isnan
from pathlib import Path

import pytest

from benchmarks.rank_correlation import main, path_of, spearman_rho
from hmseg.genotype import MRMS_GENOTYPE
from lut.errors import UserError
from lut.jsonl import read_records
from tests.deploy.cli.conftest import hmseg
from tests.hmseg.data.folders import make_camvid


@pytest.mark.parametrize(
    ("second", "rho"),
    [([1, 2, 3, 4], 1), ([9, 8, 3, 1], -1), ([10, 20, 40, 30], 0.8), ([1, 1, 2, 2], 0.8**0.5)],
)
def test_spearman_rho(second: list[float], rho: float):
    assert spearman_rho([1, 2, 3, 4], second) == pytest.approx(rho)
    assert isnan(spearman_rho([1, 2], [3, 3]))


def test_a_genotype_is_its_path():
    assert path_of(MRMS_GENOTYPE).genotype == MRMS_GENOTYPE


def test_it_evaluates_trains_and_goes_on(tmp_path: Path, monkeypatch, capsys):
    data, search = make_camvid(tmp_path / "camvid"), tmp_path / "search"
    done = hmseg("search", "--data", data, "-o", search, "--budget", "1GMACs", "--stage",
                 "64x64:2:1", "--warmup", "0", "--threads", "1")  # fmt: skip
    assert done.code == 0, done.err
    out = tmp_path / "out"
    arguments = ["--data", data, "--search", search, "-o", out, "--networks", 2, "--floor", 0.3,
                 "--stage", "64x64:2:1", "--batches", 1, "--frames", 1]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["rank_correlation", *map(str, arguments)])
    main()
    records = read_records(out / "results.jsonl")
    assert [record["kind"] for record in records] == ["inherited"] * 2 + ["trained"] * 2
    assert len({record["genotype"] for record in records}) == 2
    report = json.loads((out / "report.json").read_text())
    pairs = [record["miou"] for record in records]
    assert report["networks"] == 2
    a, b, c, d = pairs
    assert report["kendall_tau"] == ((a - b) * (c - d) > 0) - ((a - b) * (c - d) < 0)
    assert "2 networks: inherited against trained mIoU: Kendall's tau" in capsys.readouterr().out
    (out / "report.json").unlink()
    main()  # everything is known
    assert read_records(out / "results.jsonl") == records
    assert json.loads((out / "report.json").read_text()) == report
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--search", str(tmp_path / "none")])
    with pytest.raises(UserError, match="no such checkpoint"):
        main()
