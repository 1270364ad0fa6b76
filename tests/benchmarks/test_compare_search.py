"""What the comparison of searched, hand-made and random networks compares."""

from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import compare_search
from benchmarks.compare_search import (
    Comparison,
    plot_label,
    random_within,
    report,
    scaled_mrms,
)
from hmseg.genotype import MRMS_GENOTYPE
from hmseg.network_file import read_network, to_line
from hmseg.search.budget import Budget
from lut.errors import UserError
from lut.jsonl import append_record, read_records
from tests.hmseg.search.costs import odd_objective


def test_mrms_is_scaled_to_the_budget():
    objective = odd_objective()
    own = objective.cost.of(MRMS_GENOTYPE).upper
    objective.budget = Budget(own, "us")
    assert scaled_mrms(objective) == MRMS_GENOTYPE  # itself, though others come near
    for factor in (0.7, 1.2):
        objective.budget = Budget(factor * own, "us")
        scaled = scaled_mrms(objective)
        assert scaled != MRMS_GENOTYPE
        assert 0.9 * factor * own < objective.cost.of(scaled).upper <= factor * own
        assert {op.kernel for ops in scaled.ops for op in ops if op} == {3}


def test_random_networks_are_near_the_budget_and_the_seed_s_own():
    objective = odd_objective(50.0)
    drawn = random_within(objective, 8, 1, 0.9)
    assert len(set(drawn)) == 8
    assert all(45 <= objective.cost.of(g).upper <= 50 for g in drawn)
    assert drawn == random_within(objective, 8, 1, 0.9)
    assert drawn != random_within(objective, 8, 2, 0.9)
    with pytest.raises(UserError, match="0 of 50 random networks cost 101% to 100% of the budget"):
        random_within(objective, 1, 1, 1.01, draws=50)


def test_a_network_that_is_already_found_is_compared_within_the_budget(tmp_path: Path):
    root = Path(__file__).parents[2]
    arguments = Namespace(
        out=tmp_path, budget="1.5649ms",
        cost=root / "lut/data/zen5-256x512-width0.5-2threads.jsonl",
        searched=root / "hmseg/genotypes/tiny-hmseg.json",
    )  # fmt: skip
    assert Comparison(arguments).found(0) == read_network(arguments.searched)[0]
    arguments.budget = "1ms"
    with pytest.raises(UserError, match=r"tiny-hmseg.json is above the budget of 1ms; raise"):
        Comparison(arguments).found(0)


def test_the_report_takes_the_best_of_the_random_and_draws_what_was_measured(
    tmp_path: Path, capsys
):
    rows = [("searched", "searched", "a", 0, 50.0), ("hand", "MRMS scaled", "b", 0, 48.0),
            ("random", "0", "c", 0, 45.0), ("random", "1", "d", 0, 49.0),
            ("searched", "searched", "e", 1, 52.0)]  # fmt: skip
    for kind, name, genotype, seed, miou in rows:
        append_record(
            tmp_path / "results.jsonl",
            {"kind": kind, "name": name, "genotype": genotype, "seed": seed,
             "miou_percent": miou, "estimate": 1000.0},
        )  # fmt: skip
    for genotype, us in (("a", 900.0), ("d", 1100.0)):
        record = {"genotype": genotype, "measured_us": us}
        append_record(tmp_path / "latencies.jsonl", record)
    report(tmp_path)
    out = capsys.readouterr().out
    assert "| searched | 50.00 52.00 | 51.00 | 1.41 | 1000 1000 | 900 - |" in out
    assert "| best of the random | 49.00 | 49.00 | - | 1000 | 1100 |" in out
    assert "| MRMS scaled | 48.00 |" in out
    assert "mean of all random networks, each seed: 47.00\n" in out
    with Image.open(tmp_path / "pareto.png") as picture:
        assert len(set(picture.convert("L").tobytes())) > 20


def test_networks_of_table_6_are_trained_again_under_other_seeds(tmp_path: Path, monkeypatch):
    root = Path(__file__).parents[2]
    arguments = Namespace(
        out=tmp_path, budget="1.5649ms", seeds=[0, 3], stage="180x240:8:500", lr=0.05, data=None,
        cost=root / "lut/data/zen5-256x512-width0.5-2threads.jsonl",
    )  # fmt: skip
    other = replace(MRMS_GENOTYPE, low_tenths=6)

    def know(kind, name, genotype):
        append_record(
            tmp_path / "results.jsonl",
            {"kind": kind, "name": name, "seed": 0, "stage": "180x240:8:500",
             "learning_rate": 0.05, "genotype": str(genotype), "miou_percent": 1.0},
        )  # fmt: skip

    know("table6", "D", MRMS_GENOTYPE)
    know("table6", "R", other)
    know("random", "0", other)
    trained = []
    monkeypatch.setattr(
        compare_search,
        "train",
        lambda config, *_: trained.append((config.model, config.seed)) or 2.0,
    )
    Comparison(arguments).retrain()
    wanted = [to_line(genotype, 0.5) for genotype in (MRMS_GENOTYPE, other)]
    assert trained == [(line, 3) for line in wanted]  # seed 0 is known
    records = [r for r in read_records(tmp_path / "results.jsonl") if r["seed"] == 3]
    assert [(r["kind"], r["name"], r["miou_percent"]) for r in records] == [
        ("table6", "D", 2.0), ("table6", "R", 2.0)
    ]  # fmt: skip
    Comparison(arguments).retrain()
    assert len(trained) == 2
    know("table6", "D", other)
    with pytest.raises(UserError, match="several networks of D; retrain is for those of one"):
        Comparison(arguments).retrain()
    arguments.lr = 0.1
    with pytest.raises(UserError, match="no network of Table 6 at this schedule; run table6"):
        Comparison(arguments).retrain()


@pytest.mark.parametrize(
    ("kind", "name", "label"),
    [
        ("hand", "MRMS scaled", "hand"),
        ("random", "3", "random"),
        ("searched", "tiny-hmseg", "tiny-hmseg"),
        ("searched", "best-random-12", "best-random"),
    ],
)
def test_whose_point_it_is(kind: str, name: str, label: str):
    assert plot_label({"kind": kind, "name": name}) == label
