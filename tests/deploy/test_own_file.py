"""What was made of a user's file against the file: files as they come, and readings that are wrong
on purpose."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from deploy.graph.ends import with_logits_output
from deploy.graph.source import Source, open_source
from deploy.own_file import OwnFile, check_reading, first_misread, own_file
from deploy.reading.file import complete, parse
from deploy.reading.normalise import normalise
from deploy.street import draw_street
from deploy.verify import Comparison, probe_images
from lut.errors import WorkError
from tests.deploy.graphs import CLASSES, SIZE, segmenter, write

SMALL = [1, CLASSES, 8, 8]


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    def read(path, resolution):
        return normalise(complete(path, parse(path), resolution))

    monkeypatch.setattr("deploy.reading.read_apart", read)


def ending(*nodes: tuple[str, dict], shape=SMALL, element=TensorProto.FLOAT, classes=CLASSES):
    """A segmenter with more nodes behind its scores."""
    model = segmenter(classes=classes)
    model.graph.node[-1].output[0] = "t0"
    for index, (op, attributes) in enumerate(nodes):
        name = f"t{index + 1}" if index + 1 < len(nodes) else "end"
        inputs = [f"t{index}", *attributes.pop("inputs", [])]
        model.graph.node.append(helper.make_node(op, inputs, [name], name=op, **attributes))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("end", element, shape))
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.7), "seven"))
    return model


def halved() -> onnx.ModelProto:
    """All of it in half."""
    model = segmenter()
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    return model


def with_double_ends() -> onnx.ModelProto:
    """onnxruntime has no convolutions in double."""
    model = ending(("Cast", {"to": TensorProto.DOUBLE}), element=TensorProto.DOUBLE)
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    model.graph.node[0].input[0] = "single"
    cast = helper.make_node("Cast", ["input"], ["single"], to=TensorProto.FLOAT, name="cast")
    model.graph.node.insert(0, cast)
    return model


SOFTMAX = ("Softmax", {"axis": 1})
NHWC = [1, 8, 8, CLASSES]
FILES: dict[str, Callable[[], onnx.ModelProto]] = {
    "scores": segmenter,
    "bytes": lambda: segmenter(layout="uint8"),
    "at the image's size": lambda: segmenter(stride=1),
    "labels": lambda: segmenter(end="argmax"),
    "labels as bytes": lambda: segmenter(end="argmax-squeeze"),
    "softmax": lambda: ending(SOFTMAX),
    "scaled": lambda: ending(("Mul", {"inputs": ["seven"]})),
    "softmax, labels": lambda: ending(
        SOFTMAX, ("ArgMax", {"axis": 1, "keepdims": 0}), shape=[1, 8, 8], element=TensorProto.INT64
    ),
    "sigmoids": lambda: ending(("Sigmoid", {})),
    "masks": lambda: ending(
        ("Sigmoid", {}), ("Greater", {"inputs": ["seven"]}), element=TensorProto.BOOL
    ),
    "masks in floats": lambda: ending(
        ("Sigmoid", {}), ("Round", {}), ("Mul", {"inputs": ["seven"]})
    ),
    "labels in floats": lambda: ending(
        ("ArgMax", {"axis": 1}), ("Cast", {"to": TensorProto.FLOAT}), shape=[1, 1, 8, 8]
    ),
    "one class": lambda: ending(("Sigmoid", {}), shape=[1, 1, 8, 8], classes=1),
    "channels last": lambda: ending(("Transpose", {"perm": [0, 2, 3, 1]}), shape=NHWC),
    "half": halved,
    "double": with_double_ends,
}


def opened(model: onnx.ModelProto, folder: Path, **options) -> tuple[Source, OwnFile]:
    source = open_source(str(write(model, folder / "own.onnx")), **options)
    own = own_file(source)
    assert own is not None
    return source, own


def checked(source: Source, own: OwnFile) -> list[Comparison]:
    metadata = source.metadata
    golden = draw_street(metadata.resolution)
    images = probe_images(metadata.resolution, golden)
    return check_reading(own, with_logits_output(source.graph), metadata, images)


def failed(comparisons: list[Comparison]) -> set[str]:
    return {c.side for c in comparisons if not c.passed}


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_read_right(name, tmp_path):
    source, own = opened(FILES[name](), tmp_path)
    comparisons = checked(source, own)
    assert failed(comparisons) == set()
    assert [(c.side, c.image) for c in comparisons].count(("file", "golden")) == 1
    assert {c.side for c in comparisons} == {"file", "ends"}
    assert len(comparisons) == 10


def test_the_file_is_given_what_its_own_input_stands_for(tmp_path):
    image = draw_street(SIZE)
    _, own = opened(halved(), tmp_path, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    wanted = (image / 255 - [0.1, 0.2, 0.3]) / [0.4, 0.5, 0.6]
    given = own.given(image)
    assert given.dtype == np.float16
    np.testing.assert_allclose(given, wanted.transpose(2, 0, 1)[None], rtol=2**-10, atol=2**-13)
    _, own = opened(segmenter(layout="uint8"), tmp_path)
    np.testing.assert_array_equal(own.given(image), image[None])


def test_a_network_of_the_zoo_has_no_file():
    assert own_file(Source(onnx.ModelProto(), None, "")) is None


def change_weights(source: Source, name: str, factor: float) -> None:
    """In place, one of them."""
    for tensor in source.graph.graph.initializer:
        values = numpy_helper.to_array(tensor).copy()
        if values.shape == {"w1": (8, 3, 3, 3), "w2": (CLASSES, 8, 1, 1)}[name]:
            values.flat[7] *= np.float32(factor)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


class TestAMisreading:
    @pytest.mark.parametrize("name", ["scores", "softmax", "channels last", "sigmoids"])
    @pytest.mark.parametrize("weight", ["w1", "w2"])
    def test_a_weight_is_off_by_a_hundredth(self, name, weight, tmp_path):
        source, own = opened(FILES[name](), tmp_path)
        change_weights(source, weight, 1.01)
        assert failed(checked(source, own)) == {"file"}

    @pytest.mark.parametrize("name", ["labels", "masks"])
    def test_of_labels_alone_a_larger_error_is_seen(self, name, tmp_path):
        source, own = opened(FILES[name](), tmp_path)
        change_weights(source, "w2", 3)
        comparisons = [c for c in checked(source, own) if not c.passed]
        assert comparisons
        for comparison in comparisons:
            assert comparison.side == "file"
            assert 0 < comparison.unexplained_share <= comparison.differing_share

    def test_another_normalisation(self, tmp_path):
        source, own = opened(segmenter(), tmp_path)
        other = replace(source, graph=open_source(str(tmp_path / "own.onnx"), mean=(0, 0, 0)).graph)
        assert "file" in failed(checked(other, own))

    @pytest.mark.parametrize(
        ("op", "attribute", "value"),
        [
            ("Resize", "coordinate_transformation_mode", "align_corners"),
            ("Resize", "mode", "nearest"),
            ("ArgMax", "select_last_index", 1),
        ],
    )
    def test_an_end_that_means_something_else(self, op, attribute, value, tmp_path):
        model = segmenter()
        for tensor in model.graph.initializer if op == "ArgMax" else ():
            if tensor.name in ("w2", "b2"):  # all classes are equal
                equal = np.ones_like(numpy_helper.to_array(tensor))
                tensor.CopyFrom(numpy_helper.from_array(equal, tensor.name))
        source, own = opened(model, tmp_path)
        for node in source.graph.graph.node:
            if node.op_type == op:
                kept = [a for a in node.attribute if a.name != attribute]
                del node.attribute[:]
                node.attribute.extend([*kept, helper.make_attribute(attribute, value)])
        assert failed(checked(source, own)) == {"ends"}

    def test_negated_scores(self, tmp_path):
        source, own = opened(segmenter(), tmp_path)
        assert failed(checked(source, replace(own, negated=True))) == {"ends"}

    def test_another_shape_is_one_line(self, tmp_path):
        source, own = opened(segmenter(), tmp_path)
        wide = replace(own, layout=lambda scores: scores.transpose(0, 2, 3, 1))
        with pytest.raises(WorkError, match=r"output 'scores' has shape \(1, 5, 8, 8\), not"):
            checked(source, wide)

    @pytest.mark.parametrize(("weight", "op"), [("w1", "Conv 'conv1'"), ("w2", "Conv 'conv2'")])
    def test_the_first_node_that_differs_is_named(self, weight, op, tmp_path):
        source, own = opened(segmenter(), tmp_path)
        image = draw_street(SIZE)
        found = first_misread(own, source.graph, source.metadata, image)
        assert found == "no tensor that both have shows where"
        change_weights(source, weight, 1.01)
        found = first_misread(own, source.graph, source.metadata, image)
        assert found.startswith(f"first difference: {op}")
