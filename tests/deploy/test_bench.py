import json
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

from deploy.artifact import TVM
from deploy.backends.cpu import CpuBackend
from deploy.bench import OURS, PEER, BenchResult, bench, differing_share
from deploy.graph.source import Source
from deploy.measure.interleave import Protocol
from deploy.measure.peer import Peer
from deploy.precision import FP16
from deploy.runtime import open_artifact
from lut.errors import UserError
from tests.deploy.graphs import photo
from tests.deploy.test_metadata import METADATA

ONCE = Protocol(warmup=0, repeat=1, rounds=2, pause_s=0)


@pytest.fixture(scope="module")
def source(small_graph) -> Source:
    return Source(small_graph, None, "those in the file")


@pytest.fixture(scope="module")
def result(small_artifact, source) -> BenchResult:
    protocol = Protocol(warmup=1, repeat=4, rounds=3, pause_s=0)
    return bench(small_artifact, source, photo(), protocol, threads=2, profiled=True)


def test_real_calls_were_timed(result):
    assert set(result.samples) == {OURS, PEER}
    for rounds in result.samples.values():
        assert [len(block) for block in rounds] == [4, 4, 4]
        assert all(1_000 < sample < 10**10 for block in rounds for sample in block)
    assert result.summaries[OURS].n == 12


def test_json(result, small_artifact):
    data = json.loads(json.dumps(result.to_json()))
    assert (data["threads"], data["input"], data["output"]) == (2, "image", "labels")
    assert "labels map out" in data["includes"]
    assert data["machine"]["emulated"] is False
    for side in (OURS, PEER):
        calls = np.array(data["samples_ns"][side]).ravel()
        assert data["latency"][side]["median_ms"] == pytest.approx(np.median(calls) / 1e6)
        assert data["memory"][side]["network_kib"] > 0
    ours, peer = (np.median(data["samples_ns"][side], axis=1) for side in (OURS, PEER))
    assert list(data["ratios"]) == [PEER]
    assert data["ratios"][PEER]["median"] == pytest.approx(np.median(peer / ours))
    assert data["ratios"][PEER]["low"] <= data["ratios"][PEER]["median"]
    assert data["ratios"][PEER]["median"] <= data["ratios"][PEER]["high"]
    assert 0 <= data["differing_labels"][PEER] < 1e-3
    called = list(dict.fromkeys(small_artifact.calls))
    assert [kernel["name"] for kernel in data["profile"]["kernels"]] == called
    assert not {"absent", "notes", "parts_ms"} & set(data)  # nothing is to be said of them


def test_the_ratio_is_above_one_where_we_are_faster():
    machine = {"machine": "a CPU", "architecture": "x86_64", "emulated": False}
    result = BenchResult({OURS: [[10]], PEER: [[30]]}, machine, "all", 1, METADATA)
    assert result.ratios[PEER].median == 3
    assert result.calls == {OURS: [10], PEER: [30]}


def test_the_network_is_timed_on_the_image_that_is_given(small_artifact, source, monkeypatch):
    """All sides; a peer's note is kept."""
    image, seen = photo(seed=3), []

    def peers(self, artifact, source, given, threads):
        seen.append(given)
        labels = open_artifact(artifact, "n")(image)
        return {"a peer": lambda: Peer(lambda: labels, "half of it is asleep")}

    monkeypatch.setattr(CpuBackend, "peers", peers)
    monkeypatch.setattr(CpuBackend, "measures_memory", False)
    result = bench(small_artifact, source, image, ONCE, threads=2)
    assert [given is image for given in seen] == [True]
    assert result.differing == {"a peer": 0.0}  # labels of another image would differ
    assert result.notes == {"a peer": "half of it is asleep"}
    assert result.memory == {}


def test_peers_that_are_not_timed(small_artifact, source, monkeypatch):
    """One that does not start, one that fails at its first call and one with other labels: the
    others are timed. In fp16 labels may differ, and how much is said."""
    labels = open_artifact(small_artifact, "n")(photo())
    other = labels.copy()
    other[:2] += 1  # 2 rows of 64

    def fail(*_: object) -> Peer:
        raise RuntimeError("no such library\nmore")

    found = {
        "missing": fail, "broken": lambda: Peer(fail), "wrong": lambda: Peer(lambda: other),
        "cut": lambda: Peer(lambda: labels[1:]), "scores": lambda: Peer(lambda: one_hot),
    }  # fmt: skip
    one_hot = np.eye(256, dtype=np.float32)[labels].transpose(2, 0, 1)
    monkeypatch.setattr(CpuBackend, "peers", lambda *_: found)
    monkeypatch.setattr(CpuBackend, "measures_memory", False)
    result = bench(small_artifact, source, photo(), ONCE, threads=2)
    assert set(result.samples) == {OURS, "scores"}
    assert result.absent == {
        "missing": "no such library", "broken": "no such library",
        "wrong": "its labels differ from ours in 3.12% of the pixels",
        "cut": "its labels differ from ours in 100.00% of the pixels",
    }  # fmt: skip
    assert result.to_json()["absent"] == result.absent
    half = replace(small_artifact, target=replace(small_artifact.target, precision=FP16))
    result = bench(half, source, photo(), ONCE, threads=2)
    assert set(result.samples) == {OURS, "scores"}
    assert result.differing == {"scores": 0.0}
    assert result.note == ", maps in fp16"


def test_peers_that_a_user_need_not_have(small_artifact, source):
    """They are named where they are not installed, and asked only where all are wanted."""
    result = bench(small_artifact, source, photo(), ONCE, threads=2, memory=False)
    assert (set(result.samples), result.absent) == ({OURS, PEER}, {})
    result = bench(small_artifact, source, photo(), ONCE, threads=2, memory=False, all_peers=True)
    assert result.memory == {}
    if find_spec("openvino"):
        assert set(result.samples) == {OURS, PEER, "OpenVINO"}
    else:
        assert set(result.samples) == {OURS, PEER}
        assert "pip install openvino" in result.absent["OpenVINO"]


def test_what_is_left_to_tvm(small_artifact, source, monkeypatch):
    """The shares of those kernels; that there are none is known without timing."""
    monkeypatch.setattr(CpuBackend, "peers", lambda *_: {})
    once = {"threads": 2, "memory": False}
    assert bench(small_artifact, source, photo(), ONCE, **once).left_to_tvm is None
    result = bench(small_artifact, source, photo(), ONCE, **once, shares=True)
    assert result.left_to_tvm == result.to_json()["left_to_tvm"] == {}
    name = small_artifact.calls[0]
    kernels = tuple(
        replace(kernel, template=TVM) if kernel.name == name else kernel
        for kernel in small_artifact.kernels
    )
    result = bench(
        replace(small_artifact, kernels=kernels), source, photo(), ONCE, **once, shares=True
    )
    assert set(result.left_to_tvm) == {name}
    assert 0 < result.left_to_tvm[name] < 1
    gpu = replace(small_artifact, calls=())
    assert bench(gpu, source, photo(), ONCE, **once, shares=True).left_to_tvm is None


def test_differing_share():
    assert differing_share(np.zeros((2, 2)), np.eye(2)) == 0.5
    assert differing_share(np.zeros((2, 2)), np.zeros((2, 3))) == 1


def test_an_artifact_whose_kernels_are_not_timed(small_artifact, source, monkeypatch):
    """It is refused before anything is started."""
    monkeypatch.setattr(CpuBackend, "peers", None)
    with pytest.raises(UserError, match="no entry that times kernels"):
        bench(replace(small_artifact, calls=()), source, photo(), ONCE, threads=2, profiled=True)
