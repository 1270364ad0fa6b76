"""From frames to a graph in 8 bits, whole, on small networks."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from deploy.graph.ends import with_logits_output
from deploy.graph.export import read_metadata
from deploy.graph.reference import OnnxSession
from deploy.quantise.frames import Frames, open_frames
from deploy.quantise.request import is_quantised
from deploy.quantise.run import BEST, Options, quantise
from lut.errors import UserError, WorkError
from tests.deploy.graphs import deployable, photo, segmenter
from tests.deploy.quantise.test_frames import folder_of
from tests.hmseg.data.folders import make_camvid


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> onnx.ModelProto:
    return deployable(segmenter(stride=2), tmp_path_factory.mktemp("m"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return folder_of(tmp_path_factory.mktemp("frames"), 5)


def frames_of(model, folder):
    return open_frames(folder, read_metadata(model), 100)


def test_a_network(model, folder):
    told = []
    before = model.SerializeToString()
    found = quantise(model, frames_of(model, folder), Options(threads=1), told.append)
    assert model.SerializeToString() == before
    report = found.report
    assert report.passed
    assert [choice.ranges for choice in report.tried] == ["min-max", "percentile", "entropy", BEST]
    assert report.int8.figures.score_error < 0.02
    assert report.int8.figures.equal_clear > 0.999
    assert report.fp32.miou is report.limit_points is None
    assert report.layers == 2
    # Two maps: the image, of which every byte has a place, and what the Clip gives.
    image, hidden = report.maps.values()
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    assert image.low == pytest.approx((-mean / std).min(), rel=1e-5)
    assert image.high == pytest.approx(((1 - mean) / std).max(), rel=1e-5)
    assert hidden.grid.zero == 0
    assert hidden.high <= 6
    assert "Clip" not in [node.op_type for node in found.graph.graph.node]
    assert is_quantised(found.graph)
    assert not is_quantised(model)
    assert read_metadata(found.graph) == read_metadata(model)
    image = photo(seed=99)
    labels, float_labels = (OnnxSession(m).run(image)[0] for m in (found.graph, model))
    assert labels.dtype == np.uint8
    assert (labels == float_labels).mean() > 0.97
    assert told[0].startswith("calibrating: ")
    assert json.loads(json.dumps(report.to_json()))["passed"] is True
    assert "labels equal to fp32's" in report.lines()[-1]


def test_a_reader_of_the_file_has_the_same_numbers(model, folder, tmp_path):
    """Its normal form has float weights, which onnxruntime is not to round once more."""
    found = quantise(model, frames_of(model, folder)).graph
    again = deployable(found, tmp_path, output="logits")
    image, plain = photo(seed=5), with_logits_output(found)
    wanted = OnnxSession(plain, optimised=False).run(image)[-1]
    exact, got = (OnnxSession(again, optimised=way).run(image)[-1] for way in (False, True))
    np.testing.assert_allclose(exact, wanted, atol=1e-5)
    assert np.sqrt(np.mean(np.square(got - wanted))) < 2e-3 * wanted.std()


def test_it_is_the_same_every_time(model, folder):
    once, again = (quantise(model, frames_of(model, folder)).graph for _ in range(2))
    assert once.SerializeToString() == again.SerializeToString()


def test_labelled_frames_are_judged_by_miou(tmp_path):
    model = deployable(segmenter(stride=2, classes=11), tmp_path)
    frames = frames_of(model, make_camvid(tmp_path / "d", train=4) / "train")
    report = quantise(model, frames).report
    assert report.limit_points == 0.5
    assert report.fp32.miou == pytest.approx(report.int8.figures.miou, abs=0.005)
    assert "mIoU" in report.lines()[-1]
    message = r"int8 is not near enough.*; 0 points of mIoU may be lost \(--max-miou-loss\)"
    with pytest.raises(WorkError, match=message):
        quantise(model, as_float32_says(frames, model), Options(max_miou_loss=0.0))


def as_float32_says(frames: Frames, model: onnx.ModelProto) -> Frames:
    """The same frames, whose labels are what float32 finds: any other label is a loss."""
    session = OnnxSession(model)

    class Own(Frames):
        def truth(self, index):
            return session.run(self.given(index))[0]

    return Own(frames.paths, frames.metadata, frames.data)


def spoilt(tmp_path) -> onnx.ModelProto:
    """One channel of the map between both layers is a thousand times the others, and counts for
    nothing: 8 bits are spread over it alone."""
    model = segmenter(
        stride=2, extra=[helper.make_node("Relu", ["features"], ["activated"], name="relu")]
    )
    for tensor in model.graph.initializer:
        value = numpy_helper.to_array(tensor).copy()
        if tensor.name in ("w1", "b1"):
            value[0] *= 1000
        if tensor.name == "w2":
            value[:, 0] = 0
        tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    return deployable(model, tmp_path)


def test_layers_that_hurt_are_kept(tmp_path, folder):
    model = spoilt(tmp_path)
    report = quantise(model, frames_of(model, folder)).report
    assert [one.layer for one in report.sensitivity] == ["conv2", "conv1"]
    assert report.int8.kept == ("conv2",)
    assert report.int8.figures.equal_clear > 0.99
    assert len(report.raised) == 1
    text = "\n".join(report.lines())
    assert "layers that hurt" in text
    assert "1 of 2 layers in 8 bits, kept wide: conv2" in text
    kept = quantise(model, frames_of(model, folder), Options(keep=("conv2",))).report
    assert (kept.int8.kept, kept.raised) == (("conv2",), ())
    assert kept.int8.figures.equal_clear > 0.99
    assert not kept.sensitivity
    asked = quantise(model, frames_of(model, folder), Options(keep=("conv2",), sensitivity=True))
    assert [one.layer for one in asked.report.sensitivity] == ["conv1"]


def test_where_keeping_does_not_help(tmp_path, folder, monkeypatch):
    monkeypatch.setattr("deploy.quantise.gate.LEAST_EQUAL", 1.1)
    model = spoilt(tmp_path)
    with pytest.raises(WorkError, match=r"int8 is not near enough to fp32: .*1 of 2 layers"):
        quantise(model, frames_of(model, folder))


def test_no_more_than_half_is_kept(tmp_path, folder, monkeypatch):
    """What the user keeps counts, so that what passes is in 8 bits."""
    monkeypatch.setattr("deploy.quantise.gate.LEAST_EQUAL", 1.1)
    model = spoilt(tmp_path)
    message = r"1 of 2 layers in 8 bits, kept wide: conv1; .*, with at most half of the layers kept"
    with pytest.raises(WorkError, match=message):
        quantise(model, frames_of(model, folder), Options(keep=("conv1",)))


def test_masks_without_a_label_are_none(tmp_path):
    model = deployable(segmenter(stride=2, classes=11), tmp_path)
    frames = frames_of(model, make_camvid(tmp_path / "d", train=2) / "train")

    class Unlabelled(Frames):
        def truth(self, index):
            return np.full_like(super().truth(index), 255)

    empty = Unlabelled(frames.paths, frames.metadata, frames.data)
    report = quantise(model, empty).report
    assert report.limit_points is report.fp32.miou is None
    assert any("no pixel of the masks has a label" in line for line in report.lines())
    with pytest.raises(UserError, match=r"--max-miou-loss goes .*no pixel of these has one"):
        quantise(model, empty, Options(max_miou_loss=1.0))


def test_masks_are_judged_by_their_pixels(tmp_path, folder):
    model = segmenter(stride=2)
    model.graph.node.append(helper.make_node("Sigmoid", ["scores"], ["odds"], name="odds"))
    model.graph.output[0].name = "odds"
    ready = deployable(model, tmp_path, output="masks")
    report = quantise(ready, frames_of(ready, folder)).report
    assert 0.97 < report.int8.figures.equal < 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            Options(keep=("nothing",)),
            "--keep nothing: no layer has this name; there are conv1, con",
        ),
        (Options(keep=("conv1", "conv2")), "nothing of this network would be in 8 bits: every"),
        (Options(max_miou_loss=1.0), "--max-miou-loss goes with frames that have labels"),
    ],
)
def test_what_cannot_be_asked(model, folder, options, message):
    with pytest.raises(UserError, match=message):
        quantise(model, frames_of(model, folder), options)


def test_a_graph_that_is_quantised_already(model, folder):
    found = quantise(model, frames_of(model, folder)).graph
    with pytest.raises(UserError, match="quantised already"):
        quantise(found, frames_of(model, folder))


def test_a_map_that_is_not_finite_names_the_frame(tmp_path, folder):
    nodes = [
        helper.make_node("Neg", ["features"], ["minus"], name="neg"),
        helper.make_node("Log", ["minus"], ["activated"], name="log"),
    ]
    model = deployable(segmenter(stride=2, extra=nodes), tmp_path)
    message = r"000\.png: the map 'activated' of the network is not finite there"
    with pytest.raises(UserError, match=message):
        quantise(model, frames_of(model, folder))


def test_dead_channels_and_constant_maps(tmp_path, folder):
    model = segmenter(stride=2)
    for tensor in model.graph.initializer:
        value = numpy_helper.to_array(tensor).copy()
        if tensor.name == "w1":
            value[:3] = 0
        if tensor.name == "b1":
            value[:3] = [0.0, 2.5, -1.0]
        tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    ready = deployable(model, tmp_path)
    assert quantise(ready, frames_of(ready, folder)).report.int8.figures.score_error < 0.02
    for tensor in model.graph.initializer:
        if tensor.name == "w1":
            zeros = np.zeros(tensor.dims, np.float32)
            tensor.CopyFrom(numpy_helper.from_array(zeros, tensor.name))
    ready = deployable(model, tmp_path)  # every map behind is constant
    report = quantise(ready, frames_of(ready, folder)).report
    assert report.int8.figures.equal_clear == 1


def test_a_network_without_layers(tmp_path, folder):
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 64, 64])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 64, 64])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    ready = deployable(model, tmp_path)
    with pytest.raises(UserError, match="it has no layer with fixed weights"):
        quantise(ready, frames_of(ready, folder))
