import re

import pytest

from deploy.report.kinds.peers import KIND
from lut.errors import UserError
from tests.deploy.report.kinds.reading import result, section


def side(ms, rounds=2):
    return {"samples_ns": [[int(ms * 1e6)] * 3] * rounds, "latency": {"median_ms": ms},
            "versions": {"numpy": "2.4.6"}}  # fmt: skip


def record(model="unet", resolution="64x128", threads=1, **sides):
    return {
        "config": {"model": model, "resolution": resolution, "threads": threads, "job": "labels"},
        "sides": {name: side(ms) for name, ms in sides.items()}, "skipped": {"litert": "no memory"},
        "date": "2026-11-30T08:39:40+00:00", "machine": {"cpu": "a CPU"},
    }  # fmt: skip


FAILED = {key: value for key, value in record("segnet").items() if key not in ("sides", "skipped")}
FAILED |= {"failed": "out of memory"}


def test_ratios_are_those_of_the_rounds():
    text = section(KIND, record(hmseg=2.0, ort=5.0), record("enet", hmseg=1.0, ort=0.5))
    assert re.findall(r'data-tip="([^"]*)"', text) == [
        "enet: ort / hmseg 0.50 [0.50..0.50]", "unet: ort / hmseg 2.50 [2.50..2.50]",
    ]  # fmt: skip
    # What all have in common is said once.
    assert "64x128, 1 thread, labels; right of the line hmseg is faster" in text
    assert "numpy 2.4.6" in text
    assert "2026-11-30 08:39" in text


def test_the_last_record_of_a_configuration_counts():
    first, last = record(hmseg=2.0, ort=5.0), record(hmseg=1.0, ort=5.0)
    (compared,) = result(KIND, first, last).compared
    assert compared.ratios["ort"].median == 5
    assert len(result(KIND, first, record(threads=2, hmseg=1.0)).compared) == 2


def test_what_did_not_run_says_why():
    text = section(KIND, FAILED, record(hmseg=2.0, ort=5.0), record("x", hmseg=1.0, litert=2.0))
    assert 'title="out of memory" class="bad">failed' in text
    assert 'title="no memory">not run' in text
    alone = section(KIND, FAILED)
    assert "<figure" not in alone


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (record(ort=1.0), "there is no side 'hmseg'"),
        (record() | {"sides": {"hmseg": side(1.0), "ort": side(1.0, 3)}}, "ort has 3 rounds"),
        (record(hmseg=1.0) | {"machine": {}}, "machine: 'cpu' is missing"),
    ],
)
def test_what_is_wrong_is_named(wrong, message):
    with pytest.raises(UserError, match=message):
        result(KIND, wrong)
