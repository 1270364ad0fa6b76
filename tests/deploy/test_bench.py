import json

import numpy as np
import pytest

from deploy.bench import OURS, PEER, BenchResult, bench
from deploy.measure.interleave import Protocol
from deploy.measure.memory import PeakMemory
from tests.deploy.graphs import photo


@pytest.fixture(scope="module")
def result(small_artifact, small_graph) -> BenchResult:
    protocol = Protocol(warmup=1, repeat=4, rounds=3, pause_s=0)
    return bench(small_artifact, small_graph, photo(), protocol, threads=2)


def test_real_calls_were_timed(result):
    assert set(result.samples) == {OURS, PEER}
    for rounds in result.samples.values():
        assert [len(block) for block in rounds] == [4, 4, 4]
        assert all(1_000 < sample < 10**10 for block in rounds for sample in block)
    assert result.summaries[OURS].n == 12


def test_json(result):
    data = json.loads(json.dumps(result.to_json()))
    assert data["threads"] == 2
    assert "labels map out" in data["includes"]
    for side in (OURS, PEER):
        calls = np.array(data["samples_ns"][side]).ravel()
        assert data["latency"][side]["median_ms"] == pytest.approx(np.median(calls) / 1e6)
        assert data["memory"][side]["network_kib"] > 0
    ours, peer = (np.median(data["samples_ns"][side], axis=1) for side in (OURS, PEER))
    assert data["ratio"]["median"] == pytest.approx(np.median(peer / ours))
    assert data["ratio"]["low"] <= data["ratio"]["median"] <= data["ratio"]["high"]
    assert data["ratio"]["of"] == "onnxruntime time / hmseg time"


def test_the_ratio_is_above_one_where_we_are_faster():
    memory = {side: PeakMemory(1, 2) for side in (OURS, PEER)}
    result = BenchResult({OURS: [[10]], PEER: [[30]]}, memory, 1, "labels")
    assert result.ratio.median == 3
