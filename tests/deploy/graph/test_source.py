from pathlib import Path

import pytest

from deploy.graph.reference import OnnxSession
from deploy.graph.source import DEFAULT_RESOLUTION, open_source
from deploy.resolution import Resolution
from deploy.verify import require, verify_torch
from lut.errors import UserError
from tests.deploy.graphs import SIZE, photo, segmenter, write


def test_a_zoo_network():
    source = open_source("tiny-mrms", resolution=SIZE, num_classes=11)
    assert source.network is not None
    assert source.metadata.model == "tiny-mrms"
    assert source.metadata.resolution == SIZE
    assert len(source.metadata.classes) == 11
    assert "not trained" in source.weights
    again = open_source("tiny-mrms", resolution=SIZE, num_classes=11)
    assert again.graph == source.graph  # the same random weights every time
    image = photo()
    assert OnnxSession(source.graph).run(image)[0].shape == (64, 64)


def test_a_peer():
    source = open_source("fast-scnn", resolution=SIZE, num_classes=5, output="logits")
    assert source.network is not None
    assert source.imported is None
    assert source.metadata.model == "fast-scnn"
    assert source.metadata.resolution == SIZE
    assert source.metadata.input == "image"
    assert len(source.metadata.classes) == 5
    assert "not trained" in source.weights
    again = open_source("fast-scnn", resolution=SIZE, num_classes=5, output="logits")
    assert again.graph == source.graph
    assert not [n for n in source.graph.graph.node if n.op_type == "BatchNormalization"]
    images = {"photo": photo()}
    require(verify_torch(source.network, source.graph, images))
    logits = OnnxSession(source.graph).run(images["photo"])[0]
    assert logits.shape == (5, 64, 64)
    assert len(set(logits.argmax(0).ravel())) > 1  # calibrated: not one class everywhere


def test_a_size_that_a_peer_does_not_take():
    with pytest.raises(UserError, match=r"unet does not take 100x100 \(.*64 divides") as caught:
        open_source("unet", resolution=Resolution(100, 100))
    assert "\n" not in str(caught.value)


def test_released_weights_are_used_where_there_are_some():
    source = open_source("tiny-mrms", resolution=SIZE)
    assert source.weights == "trained on camvid"
    assert source.metadata.classes.name == "camvid"
    assert "not trained" in open_source("mrms", resolution=SIZE).weights


def test_an_onnx_file(tmp_path):
    path = write(segmenter(size=Resolution(64, 80)), tmp_path / "mine.onnx")
    source = open_source(str(path))
    assert source.network is None
    assert source.metadata.model == "mine"
    assert source.metadata.resolution == Resolution(64, 80)
    assert open_source(str(path), resolution=Resolution(64, 80)).graph == source.graph


def test_an_onnx_file_of_any_suffix(tmp_path):
    path = write(segmenter(), tmp_path / "model.bin")
    assert open_source(str(path)).metadata.model == "model"


def test_a_zoo_name_is_never_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("tiny-mrms").write_text("some notes")
    assert open_source("tiny-mrms", resolution=SIZE).network is not None


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("tiny-mrm", {}, "did you mean tiny-mrms"),
        ("", {}, "unknown model"),
        ("x" * 300, {}, "unknown model"),
        ("x" * 300 + ".onnx", {}, "cannot be read"),
        ("none.onnx", {}, "no such file"),
        ("tiny-mrms", {"mean": (0.5, 0.5, 0.5)}, "--mean and --std go with an ONNX file"),
        ("tiny-mrms", {"num_classes": 1}, "num_classes"),
        ("FILE", {"num_classes": 5}, "--classes goes with a zoo model"),
        (
            "FILE",
            {"resolution": Resolution(128, 128)},
            "its height is fixed, 128x128 is asked for",
        ),
    ],
)
def test_bad_requests(model, options, message, tmp_path):
    if model == "FILE":
        model = str(write(segmenter(), tmp_path / "mine.onnx"))
    with pytest.raises(UserError, match=message) as caught:
        open_source(model, **options)
    assert "\n" not in str(caught.value)


def test_an_image_too_small_for_artifacts_is_refused_early(tmp_path):
    path = write(segmenter(size=Resolution(32, 32)), tmp_path / "small.onnx")
    with pytest.raises(UserError, match="32x32: both sides must lie between 64"):
        open_source(str(path))


def test_the_default_resolution():
    assert str(DEFAULT_RESOLUTION) == "256x512"
