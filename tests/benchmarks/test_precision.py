"""Which rows are measured, and what the table says of them, on records that are made up."""

import pytest

from benchmarks import precision
from benchmarks.peers_lib.adapters import BF16, OURS, OWN, precision_of
from benchmarks.peers_lib.job import Config
from benchmarks.results_lib.precision import COLUMNS, rows_of
from deploy.precision import BF16 as BFLOAT16
from deploy.precision import FP32
from lut.errors import UserError

CONFIG = Config("tiny-hmseg-camvid", "256x512", 2, "labels")
MS = 1_000_000


def side(*rounds_ms):
    latency = {"median_ms": sorted(rounds_ms)[len(rounds_ms) // 2]}
    return {"samples_ns": [[round(ms * MS)] for ms in rounds_ms], "latency": latency}


def record(**sides):
    return {"config": CONFIG.to_json(), "sides": sides, "skipped": {}}


def test_dense_networks_at_one_size_as_users_export_them():
    configs = precision.list_configs(
        ["mrms-fitted", "stdc1-seg-fitted"], list(precision.RESOLUTIONS), [2]
    )  # fmt: skip
    assert [(c.model, c.resolution, c.exporter) for c in configs] == [
        ("mrms-fitted", "256x512", ""), ("mrms-fitted", "768x1536", ""),
        ("stdc1-seg-fitted", "256x512", "dynamo"),
    ]  # fmt: skip
    assert {c.precision for c in configs} == {FP32.name}
    with pytest.raises(UserError, match="unknown network 'resnet': there are tiny-hmseg"):
        precision.list_configs(["resnet"], ["256x512"], [2])


def test_what_a_side_computes_in():
    assert [precision_of(name) for name in (OURS, BF16, "openvino", "openvino-bf16")] == [
        FP32, BFLOAT16, FP32, BFLOAT16,
    ]  # fmt: skip
    assert precision_of(OURS, "bf16") is BFLOAT16
    assert BF16 in OWN


def test_ratios_and_bars():
    """Against ours in float32, and against the fastest peer whatever its precision."""
    sides = {
        OURS: side(3, 3, 3), BF16: side(1.5, 2, 1.8), "openvino": side(9, 9, 9),
        "openvino-bf16": side(3.6, 3.6, 3.6),
    }  # fmt: skip
    ((*row,),) = rows_of({CONFIG: record(**sides)})
    assert len(row) == len(COLUMNS)
    assert row == [
        "tiny-hmseg-camvid", "256x512", 2, BF16, "1.80", "1.67 [1.50..2.00]", "1.5: met",
        "openvino-bf16", "2.00 [1.80..2.40]", "2.0: met",
    ]  # fmt: skip


def test_a_fitted_network_has_the_bars_of_its_own():
    config = Config("mrms-fitted", "256x512", 2, "labels")
    sides = {OURS: side(3, 3, 3), BF16: side(1.5, 1.5, 1.5)}
    ((*row,),) = rows_of({config: record(**sides) | {"config": config.to_json()}})
    assert row[0] == "mrms-fitted"
    assert row[6] == "1.6: met"


def test_a_row_says_what_the_gate_refused():
    refused = side(1.5, 1.5, 1.5) | {"compiled": {"refused": "labels differ"}}
    ((*row,),) = rows_of({CONFIG: record(**{OURS: side(3, 3, 3), BF16: refused})})
    assert row[5:7] == [
        "2.00 [2.00..2.00] (the gate: labels differ)",
        "1.5: met, its labels refused",
    ]


def test_what_failed_says_why():
    failed = {"config": CONFIG.to_json(), "failed": "it does not compile"}
    left_out = record(**{OURS: side(1)}) | {"skipped": {BF16: "no such instruction"}}
    for found in (failed, left_out):
        ((*row,),) = rows_of({CONFIG: found})
        assert len(row) == len(COLUMNS)
        assert row[5] in ("it does not compile", "no such instruction")
