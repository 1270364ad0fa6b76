"""Which networks a table names."""

import pytest

from deploy.paper.checks import of_records
from tests.deploy.paper.fakes import record, setting


def test_slower_than_onnxruntime():
    records = {
        "fast": record("mrms", hmseg=[[1.0]], onnxruntime=[[2.0]], left={}),
        "slow": record("enet", hmseg=[[4.0], [4.0]], onnxruntime=[[2.0], [3.0]], left={}),
        "even": record("icnet", hmseg=[[4.0], [4.0]], onnxruntime=[[3.2], [4.4]], left={}),
        "failed": record("unet", failed="no"), "none": None,
    }  # fmt: skip
    assert of_records(records) == [
        "Slower than onnxruntime (its time over hmseg's): slow 0.62 [0.50..0.75], "
        "even 0.95 [0.80..1.10], within the spread"
    ]


def test_left_to_tvm():
    """By the share that the record has, or by its profile."""
    kernels = [
        {"template": "tvm", "spec": "", "median_ms": 1.0},
        {"template": "conv", "spec": "", "median_ms": 9.0},
    ]
    profiled = record(
        "mrms", profiled=True, hmseg=[[10.0]], profile={"frame_ms": 10.0, "kernels": kernels}
    )
    assert profiled.left_to_tvm == pytest.approx(0.1)
    records = {
        "much": record("enet", hmseg=[[1.0]], left={"a": 0.04, "b": 0.03}),
        "little": record("icnet", hmseg=[[1.0]], left={"a": 0.05}),
        "profiled": profiled,
    }
    assert of_records(records) == [
        "More than 5% of the frame left to TVM: much (7%), profiled (10%)"
    ]


def test_what_older_records_do_not_say_is_said():
    old, new = record("enet", hmseg=[[1.0]]), record("mrms", hmseg=[[1.0]], left={})
    assert old.left_to_tvm is None
    message = "Measured before the share of a frame that is left to TVM was kept: "
    assert of_records({"old": old, "new": new}) == [f"{message}old"]
    assert of_records({"old": old}) == [f"{message}all"]


def test_an_emulated_machine_proves_nothing():
    emulated = record("enet", hmseg=[[4.0]], onnxruntime=[[1.0]], on=setting(emulated=True))
    assert of_records({"a": emulated}) == of_records({}) == []
