from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper

from deploy.graph.reference import OnnxSession
from deploy.graph.source import DEFAULT_RESOLUTION, check_model, open_source
from deploy.resolution import Resolution
from deploy.verify import require, verify_torch
from hmseg.data.normalise import MEAN, STD, planes
from hmseg.families.calibrate import calibrate_batch_norm
from hmseg.train.checkpoint import Checkpoint
from hmseg.train.config import Stage, TrainConfig
from hmseg.train.quantise import FixedMap, fixed, quantise
from hmseg.train.trained import trained_network
from hmseg.zoo import create_model
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
    assert "not trained" in open_source("mrms-a", resolution=SIZE).weights


def checkpoint_of(model: str, path: Path, *, quantised: bool) -> Path:
    """Of a run without a step, on data whose classes only it knows."""
    torch.manual_seed(1)
    classes = ("sand", "sea", "sky")
    network = create_model(model, num_classes=len(classes))
    calibrate_batch_norm(network, 0)
    if quantised:
        network = quantise(network, model)
        with torch.no_grad():
            network(torch.from_numpy(planes(photo(), MEAN, STD))[None])
    config = TrainConfig(
        model, "beach", (Stage((64, 64), 2, 1),), quantise="int8" if quantised else None
    )
    Checkpoint(config, 0, classes, network.state_dict(), {}, {}).save(path)
    return path


def test_a_checkpoint(tmp_path: Path):
    path = checkpoint_of("tiny-mrms-a", tmp_path / "run.safetensors", quantised=False)
    source = open_source(str(path), resolution=SIZE)
    assert source.metadata.classes.names == ("sand", "sea", "sky")
    assert source.metadata.model == "tiny-mrms-a"
    assert source.weights == "run.safetensors, step 0"
    assert source.network is not None
    require(verify_torch(source.network, source.graph, {"photo": photo()}))
    named = path.rename(tmp_path / "run")  # whatever it is called
    assert open_source(str(named), resolution=SIZE).graph == source.graph
    with pytest.raises(UserError, match="a checkpoint has its own classes"):
        open_source(str(named), num_classes=3)
    with pytest.raises(UserError, match=r"none\.safetensors: no such file"):
        check_model(str(tmp_path / "none.safetensors"))


def test_a_quantised_checkpoint_of_a_peer(tmp_path: Path):
    """Its graph is read as a user's. The first maps are those of torch; what such random weights
    make of a tie in the later ones is another matter."""
    path = checkpoint_of("fast-scnn", tmp_path / "run.safetensors", quantised=True)
    source = open_source(str(path), resolution=SIZE, input_kind="tensor", output="logits")
    assert source.network is None
    assert source.weights == "run.safetensors, step 0, int8"
    nodes = [n for n in source.graph.graph.node if n.op_type == "QuantizeLinear"]
    assert len(nodes) == 48
    source.graph.graph.output.extend(
        helper.make_tensor_value_info(node.output[0], TensorProto.UINT8, None) for node in nodes
    )
    seen: list[np.ndarray] = []
    network = fixed(trained_network(Checkpoint.load(path), path))
    for module in network.modules():
        if isinstance(module, FixedMap):
            module.register_forward_hook(
                lambda m, _, y: seen.append(np.rint(y.numpy() / m.scale + m.zero))
            )
    image = planes(photo(), MEAN, STD)
    with torch.no_grad():
        network(torch.from_numpy(image)[None])
    # As it is written: onnxruntime's kernels of 8 bits saturate on some CPUs.
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(source.graph.SerializeToString(), options)
    _, *found = session.run(None, {session.get_inputs()[0].name: image[None]})
    for mine, theirs in list(zip(seen, found, strict=True))[:12]:
        difference = np.abs(mine - theirs)
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.01


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
