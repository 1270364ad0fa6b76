import json
from dataclasses import replace

import pytest

from deploy.backends.cpu import CpuBackend
from deploy.graph.source import Source
from deploy.measure.interleave import Protocol
from deploy.measure.peer import Peer
from deploy.profile import KernelProfile
from deploy.quick_timing import (
    BLOCKS_S,
    MOST_CALLS,
    MOST_ROUNDS,
    OURS,
    choose_protocol,
    summarise,
    time_quickly,
)
from lut.errors import UserError

MS = 1_000_000
KERNELS = tuple(
    KernelProfile(name, template, "spec", 1, ms, macs=0, bytes=0)
    for name, template, ms in [("a", "tvm", 3.0), ("b", "pointwise", 1.0)]
)


def timing(ours_ms: list[list[float]], peer_ms: list[list[float]]):
    samples = {
        name: [[round(MS * ms) for ms in block] for block in blocks]
        for name, blocks in ((OURS, ours_ms), ("peer", peer_ms))
    }
    return summarise(2, samples, KERNELS, {"other": "not here"})


@pytest.fixture(scope="module")
def source(small_graph) -> Source:
    return Source(small_graph, None, "those in the file")


def test_medians_ratios_and_shares():
    found = timing([[4, 4, 6], [2, 2, 2]], [[2, 2, 2], [2, 2, 2]])
    assert (found.ours_ms, found.peers_ms) == (3.0, {"peer": 2.0})
    assert (found.ratios["peer"].low, found.ratios["peer"].high) == (0.5, 1.0)
    assert found.shares == {"a": 0.75, "b": 0.25}
    data = json.loads(json.dumps(found.to_json()))
    assert data["ms"] == {OURS: 3.0, "peer": 2.0}
    assert [kernel["share"] for kernel in data["kernels"]] == [0.75, 0.25]
    assert (data["threads"], data["absent"]) == (2, {"other": "not here"})


@pytest.mark.parametrize(
    ("ours", "peer", "expected"),
    [
        ([[8, 8], [9, 9]], [[2, 2], [3, 3]], 3.0),  # by the round that was the best for us
        ([[8, 8], [2, 2]], [[2, 2], [3, 3]], None),  # in one round we were faster
        ([[8, 2], [8, 2]], [[2, 2], [2, 2]], None),  # at best we are as fast: something disturbed
        ([[2, 2], [2, 2]], [[8, 8], [8, 8]], None),
        ([[2.02, 2.02]], [[2, 2]], None),  # nobody can tell in two seconds
    ],
)
def test_slower_only_where_nothing_speaks_against_it(ours, peer, expected):
    found = timing(ours, peer).slower_than
    assert found == ({} if expected is None else {"peer": pytest.approx(expected)})


@pytest.mark.parametrize("seconds", [1e-6, 1e-3, 0.02, 0.09, 0.3, 2.0, 10.0])
@pytest.mark.parametrize("peer", [0.2, 1.0, 5.0])
def test_calls_stay_within_the_time_or_are_one_each(seconds, peer):
    sides = {OURS: seconds, "peer": seconds * peer}
    found = choose_protocol(sides)
    calls = found.rounds * (found.warmup + found.repeat)
    assert 1 <= found.repeat <= MOST_CALLS
    assert 1 <= found.rounds <= MOST_ROUNDS
    assert calls == 1 or calls * sum(sides.values()) <= BLOCKS_S


def test_fast_networks_are_called_often_and_slow_ones_once():
    assert choose_protocol({OURS: 0.0, "peer": 1e-4}) == Protocol(1, 10, 5, found_pause())
    slow = choose_protocol({OURS: 3.0, "peer": 0.5})
    assert (slow.warmup, slow.repeat, slow.rounds) == (0, 1, 1)


def found_pause() -> float:
    return choose_protocol({OURS: 1.0}).pause_s


def test_a_network_of_two_convolutions(small_artifact, source):
    found = time_quickly(small_artifact, source, 2)
    assert list(found.peers_ms) == ["onnxruntime"]
    assert found.ours_ms > 0 < found.peers_ms["onnxruntime"]
    assert set(found.shares) == set(small_artifact.calls)
    assert sum(found.shares.values()) == pytest.approx(1)
    assert not found.absent


def test_a_peer_that_does_not_run_has_its_reason(small_artifact, source, monkeypatch):
    def fail() -> Peer:
        raise RuntimeError("no session\nand more")

    monkeypatch.setattr(CpuBackend, "peers", lambda *_: {"onnxruntime": fail})
    found = time_quickly(small_artifact, source, 2)
    assert (found.absent, found.ratios) == ({"onnxruntime": "no session"}, {})
    assert found.slower_than == {}
    assert found.ours_ms > 0


def test_code_that_has_no_clock(small_artifact, source):
    with pytest.raises(UserError, match="no entry that times kernels"):
        time_quickly(replace(small_artifact, calls=()), source, 2)
