"""Which precision is taken: by made-up times, and on a real network."""

import json
from dataclasses import replace

import pytest

from deploy import fastest
from deploy.artifact_file import load_artifact, save_artifact
from deploy.fastest import build_fastest, choose
from deploy.graph.source import Source
from deploy.targets import resolve_target
from lut.errors import UserError, WorkError

MS = 1_000_000


def samples(**rounds_ms):
    return {name: [[round(MS * ms)] for ms in blocks] for name, blocks in rounds_ms.items()}


@pytest.fixture
def source(small_graph) -> Source:
    return Source(small_graph, None, "those in the file")


class TestChoose:
    def test_what_is_faster_in_every_round(self):
        found = choose(samples(fp32=[4, 4, 4], bf16=[2, 3.9, 2]), {})
        assert found.precision == "bf16"
        assert found.why.startswith("2 ms, fp32 4 ms (2.00 times, [1.03 .. 2.00] over 3 rounds)")
        assert found.ms == {"fp32": 4, "bf16": 2}
        assert found.ratios["bf16"].low == pytest.approx(4 / 3.9)

    def test_one_slow_round_leaves_fp32(self):
        found = choose(samples(fp32=[4, 4, 4], bf16=[2, 4.1, 2]), {})
        assert str(found) == ("precision fp32: bf16 is not faster in every round, 2 ms beside 4 ms")

    def test_without_times_the_reason_stands(self):
        found = choose({}, {"bf16": "no instructions for it"})
        assert str(found) == "precision fp32: bf16: no instructions for it"
        assert json.loads(json.dumps(found.to_json()))["refused"] == {
            "bf16": "no instructions for it"
        }


def test_on_this_machine(source, small_bf16, tmp_path, monkeypatch):
    """Both are built and timed; what the made-up times choose is written, and says why."""
    timed = []

    def time(artifacts, threads, remote):
        timed.append({name: a.target.precision.name for name, a in artifacts.items()})
        return samples(fp32=[2, 2], bf16=[1, 1])

    monkeypatch.setattr(fastest, "_time", time)
    artifact, comparisons, choice = build_fastest(source, resolve_target("cpu"), threads=1)
    assert timed == [{"fp32": "fp32", "bf16": "bf16"}]
    assert artifact.target.precision.name == choice.precision == "bf16"
    assert all(comparison.passed for comparison in comparisons)
    save_artifact(artifact, tmp_path / "n.hmseg")
    loaded = load_artifact(tmp_path / "n.hmseg")
    assert loaded.choice == choice.to_json() == loaded.manifest()["choice"]
    assert loaded.target.precision.name == "bf16"


def test_both_are_really_timed(small_artifact, small_bf16):
    found = fastest._time({"fp32": small_artifact, "bf16": small_bf16}, 1, None)
    assert set(found) == {"fp32", "bf16"}
    assert all(ns > 0 for blocks in found.values() for block in blocks for ns in block)
    assert len(found["fp32"]) == len(found["bf16"])


def test_what_is_not_checked_is_not_taken(source, monkeypatch):
    monkeypatch.setattr(fastest, "_time", None)
    for text, why in (
        ("arm", "bf16: cortex-a73 has no instructions for it"),
        ("neoverse-v1", "bf16: not taken unseen: the artifact: compiled for aarch64"),
    ):
        artifact, comparisons, choice = build_fastest(source, resolve_target(text), threads=1)
        assert (choice.precision, artifact.target.precision.name) == ("fp32", "fp32")
        assert why in choice.why
        assert (comparisons, artifact.choice["refused"]) == ([], dict(choice.refused))


def test_what_does_not_match_is_not_taken(source, small_artifact, monkeypatch):
    def build(source, target, **_):
        if target.precision.name == "bf16":
            raise WorkError("labels differ")
        return replace(small_artifact, target=target), ["a comparison"]

    monkeypatch.setattr(fastest, "build_source", build)
    monkeypatch.setattr(fastest, "_time", None)
    _, _, choice = build_fastest(source, resolve_target("znver4"), threads=1)
    assert str(choice) == "precision fp32: bf16: labels differ"


def test_gpus_have_none(source):
    with pytest.raises(UserError, match="--precision auto is for CPUs, not for adreno"):
        build_fastest(source, resolve_target("adreno"), threads=1)
