"""Which precision is taken of a real network."""

from dataclasses import replace

import pytest

from deploy import fastest
from deploy.artifact_file import load_artifact, save_artifact
from deploy.fastest import NEEDS_FRAMES, build_fastest
from deploy.graph.source import Source
from deploy.quantise.request import Request
from deploy.targets import resolve_target
from deploy.verify import Comparison
from lut.errors import UserError, WorkError
from tests.deploy.graphs import deployable, segmenter
from tests.deploy.quantise.test_frames import folder_of
from tests.deploy.test_choice import samples
from tests.hmseg.data.folders import make_camvid


@pytest.fixture
def source(small_graph) -> Source:
    return Source(small_graph, None, "those in the file")


def test_on_this_machine(source, small_bf16, tmp_path, monkeypatch):
    """Both are built and timed; what the made-up times choose is written, and says why."""
    timed = []

    def time(artifacts, threads, remote):
        timed.append({name: a.target.precision.name for name, a in artifacts.items()})
        return samples(fp32=[2, 2], bf16=[1, 1])

    monkeypatch.setattr(fastest, "_time", time)
    found = build_fastest(source, resolve_target("cpu"), threads=1)
    artifact, choice = found.artifact, found.choice
    assert timed == [{"fp32": "fp32", "bf16": "bf16"}]
    assert artifact.target.precision.name == choice.precision == "bf16"
    assert all(comparison.passed for comparison in found.comparisons)
    assert choice.refused == {"int8": NEEDS_FRAMES}
    assert choice.kept["bf16"].equal_clear >= 0.99
    assert (found.source, found.quantisation) == (source, None)
    save_artifact(artifact, tmp_path / "n.hmseg")
    loaded = load_artifact(tmp_path / "n.hmseg")
    assert loaded.choice == choice.to_json() == loaded.manifest()["choice"]
    assert loaded.target.precision.name == "bf16"


def test_both_are_really_timed(small_artifact, small_bf16):
    found = fastest._time({"fp32": small_artifact, "bf16": small_bf16}, 1, None)
    assert set(found) == {"fp32", "bf16"}
    assert all(ns > 0 for blocks in found.values() for block in blocks for ns in block)
    assert len(found["fp32"]) == len(found["bf16"])


def test_what_is_not_checked_is_not_taken(source, monkeypatch, tmp_path):
    calibrated = Request(folder_of(tmp_path / "frames", 2))
    monkeypatch.setattr(fastest, "_time", None)
    for text, why in (
        ("arm", "bf16: cortex-a73 has no instructions for it"),
        ("neoverse-v1", "bf16: not taken unseen: the artifact: compiled for aarch64"),
    ):
        found = build_fastest(source, resolve_target(text), threads=1, request=calibrated)
        artifact, choice = found.artifact, found.choice
        assert (choice.precision, artifact.target.precision.name) == ("fp32", "fp32")
        assert why in choice.why
        assert "int8: not taken unseen" in choice.why
        assert (found.comparisons, artifact.choice["refused"]) == ([], dict(choice.refused))


def test_what_does_not_match_is_not_taken(source, small_artifact, monkeypatch):
    def build(source, target, **_):
        made = [Comparison("tvm", "golden", 0.0, 1.0, 0.0, 0.0)]
        if target.precision.name == "bf16":
            raise WorkError("labels differ")
        return replace(small_artifact, target=target), made

    monkeypatch.setattr(fastest, "build_source", build)
    monkeypatch.setattr(fastest, "_time", None)
    choice = build_fastest(source, resolve_target("znver4"), threads=1).choice
    assert str(choice) == f"precision fp32: bf16: labels differ; int8: {NEEDS_FRAMES}"


def test_gpus_have_none(source):
    with pytest.raises(UserError, match="--precision auto is for CPUs, not for adreno"):
        build_fastest(source, resolve_target("adreno"), threads=1)


@pytest.fixture(scope="module")
def camvid(tmp_path_factory):
    """A network of CamVid's classes, and a folder of frames with labels beside them."""
    folder = tmp_path_factory.mktemp("c")
    graph = deployable(segmenter(stride=2, classes=11), folder)
    return Source(graph, None, "random"), make_camvid(folder / "d", train=3) / "train"


@pytest.fixture
def plain_cpu(monkeypatch):
    """One that has no bfloat16: two precisions are compiled."""
    monkeypatch.setattr(fastest, "_instructions", lambda _: "no instructions for it")
    return resolve_target("cpu")


def test_int8_by_frames(camvid, plain_cpu, monkeypatch):
    """It is judged by its own labels on all of the frames, and compiled from the graph with
    pairs."""
    monkeypatch.setattr(fastest, "_time", lambda *_: samples(fp32=[2, 2], int8=[1, 1]))
    source, frames = camvid
    request, steps = Request(frames, max_miou_loss=100.0), []
    found = build_fastest(source, plain_cpu, threads=1, request=request, on_step=steps.append)
    assert found.choice.precision == found.artifact.target.precision.name == "int8"
    assert found.source.compiled is not source.graph
    assert found.quantisation.frames == 3
    kept, in_onnxruntime = found.choice.kept["int8"], found.quantisation.int8.figures
    assert kept.miou == pytest.approx(in_onnxruntime.miou, abs=5e-3)
    assert kept.equal == pytest.approx(in_onnxruntime.equal, abs=5e-3)
    assert found.choice.kept["fp32"].miou == pytest.approx(found.quantisation.fp32.miou)
    assert found.choice.judged_on == f"3 frames of {frames}"
    assert found.choice.table()[-2].endswith("taken")
    assert any(step.startswith("int8: calibrating") for step in steps)


def test_what_loses_too_much_on_the_frames_is_not_taken(camvid, plain_cpu, monkeypatch):
    """In onnxruntime the graph passed; the binary, as if another one, does not."""
    monkeypatch.setattr(fastest, "_time", None)
    monkeypatch.setattr(fastest, "passes", lambda fp32, low, limit: low is fp32)
    source, frames = camvid
    request = Request(frames, max_miou_loss=100.0)
    choice = build_fastest(source, plain_cpu, threads=1, request=request).choice
    assert choice.precision == "fp32"
    assert "100 points of mIoU may be lost (--max-miou-loss)" in choice.refused["int8"]
    assert "mIoU" in choice.table()[-2]


def test_what_cannot_be_calibrated_so(camvid, plain_cpu, monkeypatch):
    """Ranges that lose too much leave fp32, and say so."""
    source, frames = camvid

    def quantise(*_):
        raise WorkError("int8 is not near enough to fp32")

    monkeypatch.setattr(fastest, "quantise_source", quantise)
    choice = build_fastest(source, plain_cpu, threads=1, request=Request(frames)).choice
    assert choice.refused["int8"] == "int8 is not near enough to fp32"


def test_scales_of_its_own(camvid, plain_cpu, monkeypatch):
    """A file in 8 bits needs no frames."""
    source, _ = camvid
    asked = []

    def build(source, target, **_):
        asked.append(target.precision.name)
        raise WorkError("no further")

    monkeypatch.setattr(fastest, "is_quantised", lambda _: True)
    monkeypatch.setattr(fastest, "has_pairs", lambda _: False)
    choice = build_fastest(source, plain_cpu, threads=1).choice
    assert choice.refused["int8"] == "no map of the file is in 8 bits with one scale"
    monkeypatch.setattr(fastest, "has_pairs", lambda _: True)
    first, plain = fastest.build_source, []

    def once(source, target, **how):
        if target.precision.name != "fp32":
            return build(source, target, **how)
        plain.append(target)
        return first(source, target, **how)

    monkeypatch.setattr(fastest, "build_source", once)
    choice = build_fastest(source, plain_cpu, threads=1).choice
    assert (asked, choice.refused["int8"]) == (["int8"], "no further")
