"""What is read of users' files is held to the files themselves, run by onnxruntime as they are."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch.nn import functional as F

from deploy.graph.ends import feed, in_own_layout
from deploy.graph.export import Imported, make_deployable, read_metadata
from deploy.reading import ReadModel
from deploy.reading.file import UserFile
from deploy.resolution import Resolution
from lut.errors import UserError
from tests.deploy.graph.ends.files import FLOAT, INT64, SIZE, UINT8, network, node, run
from tests.deploy.graphs import photo

IMAGE = photo(SIZE)


def read(model: onnx.ModelProto, folder, **options: object) -> Imported:
    """Without the door, in a process of its own: these files have the normal form."""
    graph = onnx.ModelProto()
    graph.CopyFrom(model)
    return make_deployable(ReadModel(UserFile(folder / "user.onnx", model), graph), **options)


def found_by(imported: Imported, image: np.ndarray = IMAGE) -> np.ndarray:
    (result,) = run(imported.graph, image[None])
    assert result.dtype == read_metadata(imported.graph).output_dtype
    return result[0]


def own_output(model: onnx.ModelProto, imported: Imported, image: np.ndarray = IMAGE) -> np.ndarray:
    given = feed(imported.ends, read_metadata(imported.graph), image)
    return run(model, given, imported.ends.output)[0]


def check_tail(model: onnx.ModelProto, imported: Imported, image: np.ndarray = IMAGE) -> None:
    """What is left out, behind the scores of the deployable graph, makes the file's own output."""
    wanted = own_output(model, imported, image)
    (scores,) = run(imported.graph, image[None], imported.scores)
    given = in_own_layout(imported.ends, scores)
    if not imported.tail.graph.node:
        np.testing.assert_allclose(given, wanted, atol=1e-5)
        return
    (got,) = run(imported.tail, given)
    assert got.shape == wanted.shape
    if got.dtype == np.float32:
        np.testing.assert_allclose(got, wanted, atol=1e-5)
    else:
        assert (got != wanted).mean() < 1e-3


ARGMAX = node("ArgMax", "scores", "labels", axis=1, keepdims=0)
KEPT = node("ArgMax", "scores", "kept", axis=1, keepdims=1)
NHWC = node("Transpose", "scores", "nhwc", perm=[0, 2, 3, 1])
HEIGHT, WIDTH = SIZE
I64 = lambda *values: np.array(values, np.int64)  # noqa: E731

# Nodes behind the scores, the constants that they read, and what is said of the end. The file's
# output is the last node's, its labels have the image's size.
LABELS = {
    "arg max": ([ARGMAX], {}),
    "axis kept": ([KEPT], {}),
    "cast": ([ARGMAX, node("Cast", "labels", "out", to=TensorProto.INT32)], {}),
    "to float": ([KEPT, node("Cast", "kept", "out", to=FLOAT)], {}),
    "squeezed": ([KEPT, node("Squeeze", "kept axes", "out")], {"axes": I64(0, 1)}),
    "unsqueezed": ([ARGMAX, node("Unsqueeze", "labels axes", "out")], {"axes": I64(3)}),
    "reshaped": ([ARGMAX, node("Reshape", "labels to", "out")], {"to": I64(1, HEIGHT * WIDTH)}),
    "moved": ([KEPT, node("Transpose", "kept", "out", perm=[0, 2, 3, 1])], {}),
    "last axis": ([NHWC, node("ArgMax", "nhwc", "out", axis=-1, keepdims=0)], {}),
    "negative axis": ([node("ArgMax", "scores", "out", axis=-3, keepdims=0)], {}),
    "no batch": (
        [node("Squeeze", "scores axes", "planes3"), node("ArgMax", "planes3", "out", axis=0)],
        {"axes": I64(0)},
    ),
    "flat": (
        [
            node("Reshape", "scores to", "flat"),
            node("Transpose", "flat", "turned", perm=[0, 2, 1]),
            node("ArgMax", "turned", "index", axis=2, keepdims=0),
            node("Reshape", "index back", "out"),
        ],
        {"to": I64(1, 5, HEIGHT * WIDTH), "back": I64(HEIGHT, WIDTH)},
    ),
    "softmax": (
        [node("Softmax", "scores", "p", axis=1), node("ArgMax", "p", "out", axis=1, keepdims=0)],
        {},
    ),
    "log softmax, scaled": (
        [
            node("Mul", "by scores", "scaled"),
            node("LogSoftmax", "scaled", "p", axis=1),
            node("Div", "p by", "q"),
            node("ArgMax", "q", "out", axis=1, keepdims=0),
        ],
        {"by": np.array([[[[0.5]]]], np.float32)},
    ),
    "sigmoid": (
        [node("Sigmoid", "scores", "p"), node("ArgMax", "p", "out", axis=1, keepdims=0)], {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", LABELS)
def test_labels(case, tmp_path):
    tail, constants = LABELS[case]
    model = network(tail, [tail[-1].output[0]], constants=constants)
    imported = read(model, tmp_path)
    ends = imported.ends
    assert (ends.end, ends.scores, ends.num_scores) == ("labels", "scores", 5)
    assert not ends.independent
    expected = own_output(model, imported).reshape(SIZE)
    assert len(np.unique(expected)) > 2
    assert (found_by(imported) != expected).mean() < 1e-3
    check_tail(model, imported)


# As above, and on which axis the file's own output has its classes, and what the end is.
SCORES = {
    "scores": ([], {}, 1, "scores"),
    "last": ([NHWC], {}, 3, "scores"),
    "no batch": ([node("Squeeze", "scores axes", "out")], {"axes": I64(0)}, 0, "scores"),
    "no batch, last": (
        [NHWC, node("Squeeze", "nhwc axes", "out")], {"axes": I64(0)}, 2, "scores",
    ),
    "softmax": ([node("Softmax", "scores", "out", axis=1)], {}, 1, "softmax"),
    "softmax, last": ([NHWC, node("Softmax", "nhwc", "out")], {}, 3, "softmax"),
    "log softmax": ([node("LogSoftmax", "scores", "out", axis=-3)], {}, 1, "softmax"),
    "scaled": ([node("Div", "scores by", "out")], {"by": np.array([7], np.float32)}, 1, "scores"),
    "as Keras flattens": (
        [
            NHWC, node("Reshape", "nhwc to", "flat"), node("Softmax", "flat", "out", axis=-1),
        ],
        {"to": I64(1, -1, 5)}, 2, "softmax",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SCORES)
def test_scores(case, tmp_path):
    tail, constants, axis, end = SCORES[case]
    model = network(tail, [tail[-1].output[0] if tail else "scores"], constants=constants)
    imported = read(model, tmp_path)
    assert (imported.ends.end, imported.ends.scores) == (end, "scores")
    expected = own_output(model, imported).argmax(axis).reshape(SIZE)
    assert (found_by(imported) != expected).mean() < 1e-3
    check_tail(model, imported)


@pytest.mark.parametrize("stride", [2, 7, 16])
def test_scores_last_at_any_stride(stride, tmp_path):
    model = network([NHWC], ["nhwc"], stride=stride)
    imported = read(model, tmp_path, output="logits")
    scores = torch.from_numpy(own_output(model, imported).transpose(0, 3, 1, 2).copy())
    expected = F.interpolate(scores, size=tuple(SIZE), mode="bilinear")[0]
    np.testing.assert_allclose(found_by(imported), expected, atol=1e-4)


def test_what_changes_an_arg_max_is_kept(tmp_path):
    """A softmax over another axis, a negative factor, factors by class."""
    by = np.random.default_rng(1).uniform(0.1, 3, (1, 5, 1, 1)).astype(np.float32)
    for tail, constants in (
        ([node("Softmax", "scores", "out", axis=3)], {}),
        ([node("Mul", "scores by", "out")], {"by": np.array(-1, np.float32)}),
        ([node("Mul", "scores by", "out")], {"by": by}),
    ):
        for end in ([], [node("ArgMax", "out", "index", axis=1, keepdims=0)]):
            model = network(
                [*tail, *end], [end[0].output[0] if end else "out"], constants=constants
            )
            imported = read(model, tmp_path)
            assert imported.ends.scores == "out"
            own = own_output(model, imported)
            expected = own[0] if end else own.argmax(1)[0]
            assert (found_by(imported) != expected).mean() < 1e-3


SIGMOID = node("Sigmoid", "scores", "p")
HALF = {"half": np.array(0.5, np.float32)}
# Of one class or several: nodes, constants, and the file's own output as masks.
MASKS = {
    "score above": ([node("Greater", "scores half", "out")], HALF),
    "not below": ([node("GreaterOrEqual", "scores half", "out")], HALF),
    "half is less": ([node("Less", "half scores", "out")], HALF),
    "score below": ([node("Less", "scores half", "out")], HALF),
    "not above": ([node("Greater", "scores half", "up"), node("Not", "up", "out")], HALF),
    "sigmoid above": (
        [SIGMOID, node("Greater", "p t", "m"), node("Cast", "m", "out", to=UINT8)],
        {"t": np.array([0.3], np.float32)},
    ),
    "sigmoid below": (
        [SIGMOID, node("LessOrEqual", "p t", "m"), node("Cast", "m", "out", to=FLOAT)],
        {"t": np.array([[0.7]], np.float32)},
    ),
    "scaled": (
        [node("Mul", "scores half", "s"), node("Sigmoid", "s", "p"),
         node("Greater", "p half", "out")], HALF,
    ),
    "rounded": ([SIGMOID, node("Round", "p", "out")], {}),
    "rounded, black on white": (
        [SIGMOID, node("Round", "p", "r"), node("Cast", "r", "b", to=TensorProto.BOOL),
         node("Not", "b", "out")], {},
    ),
    "one or zero": (
        [node("Greater", "scores half", "m"), node("Where", "m one zero", "out")],
        HALF | {"one": I64(1), "zero": I64(0)},
    ),
    "zero or a map of 255": (
        [node("Less", "scores half", "m"), node("Where", "m zero many", "out")],
        HALF | {"zero": np.uint8(0), "many": np.full((1, 1, *SIZE), 255, np.uint8)},
    ),
    "times 255": (
        [node("Greater", "scores half", "m"), node("Cast", "m", "f", to=FLOAT),
         node("Mul", "by f", "s"), node("Cast", "s", "out", to=UINT8)],
        HALF | {"by": np.float32(255)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("case", MASKS)
def test_masks_at_the_end_of_a_file(case, classes, tmp_path):
    tail, constants = MASKS[case]
    model = network(tail, ["out"], classes=classes, constants=constants)
    imported = read(model, tmp_path)
    metadata = read_metadata(imported.graph)
    own = own_output(model, imported)[0] > 0
    assert imported.ends.end == "masks"
    assert metadata.output == ("labels" if classes == 1 else "masks")
    assert ("do not exclude each other" in imported.note) == (classes > 1)
    found = found_by(imported)
    assert 0.01 < found.mean() < 0.99
    assert (found != (own[0] if classes == 1 else own)).mean() < 1e-3
    check_tail(model, imported)
    # Given back as it was written, and as class scores.
    for kind in (None, "logits"):
        again = read(read(model, tmp_path, output=kind).graph, tmp_path)
        assert read_metadata(again.graph).output == metadata.output
        np.testing.assert_array_equal(found_by(again), found)
    logits = read(model, tmp_path, output="logits").graph
    scores = run(logits, IMAGE[None])[0][0]
    np.testing.assert_array_equal(read_metadata(logits).found_in(scores), found)


ONE_CLASS = {
    "score": ([], {}, "scores", 0.0),
    "sigmoid": ([SIGMOID], {}, "p", 0.5),
    "no axis": ([node("Squeeze", "scores axes", "out")], {"axes": I64(0, 1)}, "out", 0.0),
    "no axis, sigmoid": (
        [node("Squeeze", "scores axes", "s"), node("Sigmoid", "s", "out")], {"axes": I64(1)},
        "out", 0.5,
    ),
    "last": ([NHWC], {}, "nhwc", 0.0),
}  # fmt: skip


@pytest.mark.parametrize("stride", [1, 4])
@pytest.mark.parametrize("case", ONE_CLASS)
def test_one_class(case, stride, tmp_path):
    tail, constants, output, usual = ONE_CLASS[case]
    model = network(tail, [output], classes=1, stride=stride, constants=constants)
    for threshold in (None, 0.3):
        imported = read(model, tmp_path, threshold=threshold)
        metadata = read_metadata(imported.graph)
        assert metadata.classes.names == ("background", "class 1")
        assert (metadata.output, metadata.scores) == ("labels", 1)
        own = own_output(model, imported).reshape(imported.ends.scores_size)
        if usual == 0.5:  # of the probabilities; in between, scores are interpolated
            own = np.log(own / (1 - own))
            level = 0.0 if threshold is None else np.log(threshold / (1 - threshold))
        else:
            level = usual if threshold is None else threshold
        full = F.interpolate(torch.from_numpy(own)[None, None], size=tuple(SIZE), mode="bilinear")
        found = found_by(imported)
        assert 0.01 < found.mean() < 0.99
        assert (found != (full[0, 0] > level).numpy()).mean() < 1e-3
        check_tail(model, imported)


def test_several_sigmoids(tmp_path):
    model = network([SIGMOID], ["p"])
    imported = read(model, tmp_path)
    assert imported.note.startswith("5 classes that do not exclude each other")
    np.testing.assert_array_equal(found_by(imported), own_output(model, imported)[0] > 0.5)
    strict = read(model, tmp_path, threshold=0.9)
    assert (found_by(strict) != (own_output(model, strict)[0] > 0.9)).mean() < 1e-3
    labels = read(model, tmp_path, output="labels")
    assert not labels.note
    assert (found_by(labels) != own_output(model, labels)[0].argmax(0)).mean() < 1e-3
    masks = read(network(), tmp_path, output="masks")  # of scores, where that is asked for
    assert (found_by(masks) != (own_output(network(), masks)[0] > 0)).mean() < 1e-3


LARGER = helper.make_node("Resize", ["p", "", "", "to"], ["out"], mode="linear")
# Probabilities that no score is found behind: nodes and constants.
PROBABILITIES = {
    "sigmoid made larger": ([SIGMOID, LARGER], {}),
    "hard sigmoid": ([node("HardSigmoid", "scores", "out")], {}),
    "one less a sigmoid": (
        [SIGMOID, node("Sub", "one p", "out")], {"one": np.array([1], np.float32)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("case", PROBABILITIES)
def test_probabilities_are_there_above_one_half(case, classes, tmp_path):
    tail, constants = PROBABILITIES[case]
    constants = constants | {"to": I64(1, classes, *SIZE)}
    stride = 2 if LARGER in tail else 1
    model = network(tail, ["out"], classes=classes, stride=stride, constants=constants)
    for threshold in (None, 0.4):
        imported = read(model, tmp_path, threshold=threshold)
        metadata = read_metadata(imported.graph)
        assert metadata.output == ("labels" if classes == 1 else "masks")
        expected = own_output(model, imported)[0] > (threshold or 0.5)
        assert 0.01 < expected.mean() < 0.99
        assert (found_by(imported) != expected).mean() < 1e-3


def test_one_of_two_classes_by_their_softmax(tmp_path):
    softmax = node("Softmax", "scores", "p", axis=1)
    constants = {"from": I64(1), "to": I64(2), "axis": I64(1)}
    for stride in (1, 4):
        model = network(
            [softmax, node("Slice", "p from to axis", "out")], ["out"], classes=2, stride=stride,
            constants=constants,
        )  # fmt: skip
        imported = read(model, tmp_path)
        full = torch.from_numpy(own_output(model, imported))
        expected = F.interpolate(full, size=tuple(SIZE), mode="bilinear")[0, 0] > 0.5
        assert (found_by(imported) != expected.numpy()).mean() < 1e-3


UNSIGNED = {
    "relu": [node("Relu", "scores", "out")],
    "clipped": [node("Clip", "scores zero one", "out")],
}


@pytest.mark.parametrize("case", UNSIGNED)
def test_numbers_that_are_never_below_0_need_a_threshold(case, tmp_path):
    tail = UNSIGNED[case]
    constants = {"zero": np.float32(0), "one": np.float32(1)}
    model = network(tail, [tail[-1].output[0]], classes=1, constants=constants)
    with pytest.raises(UserError, match=r"no number of the ONNX output '.*' is below 0: say with"):
        read(model, tmp_path)
    imported = read(model, tmp_path, threshold=0.3)
    expected = own_output(model, imported)[0, 0] > 0.3
    assert (found_by(imported) != expected).mean() < 1e-3


@pytest.mark.parametrize("element", [FLOAT, UINT8])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_inputs(channels, layout, element, tmp_path):
    model = network(layout=layout, element=element, channels=channels)
    image = np.random.default_rng(0).integers(0, 256, (*SIZE, channels), dtype=np.uint8)
    values = {"mean": (0.4, 0.5, 0.6, 0.7)[:channels], "std": (0.1, 0.2, 0.3, 0.4)[:channels]}
    given = image.transpose(2, 0, 1) if layout == "NCHW" else image
    if element == FLOAT:
        floats = (image / 255 - values["mean"]) / values["std"]
        given = (floats.transpose(2, 0, 1) if layout == "NCHW" else floats).astype(np.float32)
    options = values if element == FLOAT else {}
    imported = read(model, tmp_path, output="logits", **options)
    assert read_metadata(imported.graph).channels == channels
    (expected,) = run(model, given[None])
    np.testing.assert_allclose(found_by(imported, image), expected[0], atol=1e-4)
    if element == FLOAT:
        np.testing.assert_allclose(
            feed(imported.ends, read_metadata(imported.graph), image)[0], given, atol=1e-5
        )
        tensor = read(model, tmp_path, output="logits", input_kind="tensor", **options).graph
        (taken,) = tensor.graph.input
        assert (taken.name, taken.type.tensor_type.elem_type) == ("tensor", FLOAT)
        (found,) = run(tensor, read_metadata(tensor).network_input(image)[None])
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_file_of_tensorflow_gets_the_image_end_of_the_zoo(tmp_path):
    """Its Transpose to planes is the image end's."""
    graph = read(network(layout="NHWC"), tmp_path).graph.graph
    assert [n.op_type for n in graph.node[:5]] == ["Transpose", "Cast", "Mul", "Add", "Conv"]


def test_grey_and_rgba_images_are_scaled_alone_unless_said_otherwise(tmp_path):
    for channels in (1, 4):
        metadata = read_metadata(read(network(channels=channels), tmp_path).graph)
        assert (metadata.mean, metadata.std) == ((0.0,) * channels, (1.0,) * channels)


def test_one_of_several_outputs(tmp_path):
    tail = [NHWC, node("Softmax", "relu", "a\x1b[31m\nux")]
    tail[1].input[:] = ["relu"]
    tail[1].output[:] = ["a\x1b[31m\nux"]
    model = network(tail, ["nhwc", "a\x1b[31m\nux"])
    with pytest.raises(UserError, match=r"2 outputs; name the one to read with --output-name") as e:
        read(model, tmp_path)
    assert "'nhwc', 'a\\x1b[31m\\nux'" in str(e.value)
    with pytest.raises(UserError, match="no output 'none'; it has 'nhwc'"):
        read(model, tmp_path, output_name="none")
    imported = read(model, tmp_path, output_name="nhwc")
    expected = own_output(model, imported).argmax(3)[0]
    assert (found_by(imported) != expected).mean() < 1e-3


def test_many_classes(tmp_path):
    model = network(classes=300, stride=8)
    imported = read(model, tmp_path)
    assert found_by(imported).dtype == np.uint16
    assert len(read_metadata(imported.graph).classes) == 300


NAMES = '["lane", "kerb", "marking", "grass", "sky"]'


class TestMetadata:
    def read(self, folder, classes: int = 5, **strings: str):
        model = network(classes=classes)
        helper.set_model_props(model, strings)
        return read_metadata(read(model, folder).graph).classes

    def test_names_and_palette_alone(self, tmp_path):
        palette = "[[1,2,3],[4,5,6],[7,8,9],[10,11,12],[255,0,0]]"
        classes = self.read(tmp_path, names=NAMES, palette=palette)
        assert classes.names == ("lane", "kerb", "marking", "grass", "sky")
        assert classes.palette[4] == (255, 0, 0)
        assert self.read(tmp_path, names=NAMES).names[0] == "lane"
        assert self.read(tmp_path, palette=palette).names[0] == "class 0"

    @pytest.mark.parametrize(
        "names",
        [
            "{0: 'lane', 1: 'kerb', 2: 'marking', 3: 'grass', 4: 'sky'}",  # as Ultralytics has it
            '{"0": "lane", "1": "kerb", "2": "marking", "3": "grass", "4": "sky"}',
            "['lane', 'kerb', 'marking', 'grass', 'sky']",
        ],
    )
    def test_names_as_others_write_them(self, names, tmp_path):
        assert self.read(tmp_path, names=names).names == ("lane", "kerb", "marking", "grass", "sky")

    def test_one_class_may_be_named_alone(self, tmp_path):
        assert self.read(tmp_path, 1, names='["road"]').names == ("background", "road")
        assert self.read(tmp_path, 1, names='["no", "yes"]').names == ("no", "yes")

    @pytest.mark.parametrize(
        ("strings", "message"),
        [
            ({"names": '["a", "b"]'}, "names 2 classes, the graph gives 5"),
            ({"names": "{0: 'a'}"}, "names 1 classes, the graph gives 5"),
            ({"names": "{0: 'a', 2: 'b'}"}, "'names' must be a JSON list of texts"),
            ({"names": "a, b, c, d, e"}, "'names' must be a JSON list of texts"),
            ({"names": "[" * 99_999}, "'names' must be a JSON list of texts"),
            ({"names": "[1, 2, 3, 4, 5]"}, "'names' must be a JSON list of texts"),
            ({"names": NAMES, "palette": "[[1, 2, 3]]"}, "5 names, 1 colours"),
            ({"names": NAMES, "palette": "[[256, 0, 0]]"}, "'palette' must be a JSON list of"),
        ],
    )
    def test_refused(self, strings, message, tmp_path):
        with pytest.raises(UserError, match=message):
            self.read(tmp_path, **strings)


def ambiguous() -> onnx.ModelProto:
    """From a matrix product, which says nothing of axes: (1, 64, 64, 64) of an image of 64x64."""
    x = helper.make_tensor_value_info("x", FLOAT, [1, 3, 64, 64])
    out = helper.make_tensor_value_info("out", FLOAT, [1, 64, 64, 64])
    weights = {
        "w": np.ones((64, 64), np.float32),
        "to": I64(1, 1, 64, 64),
        "many": I64(1, 64, 1, 1),
    }
    nodes = [
        helper.make_node("ReduceMean", ["x", "axes"], ["grey"], keepdims=1),
        helper.make_node("MatMul", ["grey", "w"], ["one"]),
        helper.make_node("Expand", ["one", "size"], ["out"]),
    ]
    weights |= {"axes": I64(1), "size": I64(1, 64, 64, 64)}
    return inferred(nodes, x, out, weights)


def inferred(nodes, x, out, weights) -> onnx.ModelProto:
    from tests.deploy.graphs import model_of

    return onnx.shape_inference.infer_shapes(model_of(nodes, [x], [out], weights, 20))


def of_input(*shape: int, element: int = FLOAT) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", element, shape)
    out = helper.make_tensor_value_info("out", element, shape)
    return inferred([helper.make_node("Identity", ["x"], ["out"])], x, out, {})


TURNED = node("Transpose", "scores", "turned", perm=[0, 1, 3, 2])
REFUSED = {
    "two inputs": (
        inferred(
            [helper.make_node("Add", ["x", "y"], ["out"])],
            helper.make_tensor_value_info("x", FLOAT, [1, 3, 64, 64]),
            helper.make_tensor_value_info("out", FLOAT, [1, 3, 64, 64]), {},
        ),
        {}, r"2 inputs \('x', 'y'\); one image",
    ),
    "channels": (of_input(1, 2, 64, 64), {}, r"input 'x' is float \(1, 2, 64, 64\); supported"),
    "batch": (of_input(2, 3, 64, 64), {}, r"\(2, 3, 64, 64\); supported"),
    "either axis": (of_input(1, 3, 64, 3), {}, "which axis holds the channels cannot be told"),
    "int8": (of_input(1, 3, 64, 64, element=TensorProto.INT8), {}, "input 'x' is int8"),
    "no labels": (
        network([node("Cast", "scores", "out", to=INT64)], ["out"]), {},
        r"'out', int64 \(1, 5, 64, 80\), comes from no ArgMax",
    ),
    "vector": (
        network([node("Flatten", "scores", "out")], ["out"]), {}, "has no axis of classes",
    ),
    "half": (network([node("Cast", "scores", "out", to=10)], ["out"]), {}, "comes from no ArgMax"),
    "more than one axis": (ambiguous(), {}, "could have its classes on more than one axis"),
    "exchanged": (network([TURNED], ["turned"]), {}, None),
    "arg max of exchanged": (
        network([ARGMAX, node("Transpose", "labels", "out", perm=[0, 2, 1])], ["out"]), {},
        r"ArgMax \(node 'the ArgMax to .*'\) the ONNX graph exchanges axes",
    ),
    "arg max of rows": (
        network([node("ArgMax", "scores", "out", axis=2)], ["out"]), {},
        "an ArgMax over another axis than that of the classes",
    ),
    "arg max of columns": (
        network([node("ArgMax", "scores", "out", axis=3)], ["out"], classes=64), {},
        "an ArgMax over another axis than that of the classes",
    ),
    "arg max of one": (network([ARGMAX], ["labels"], classes=1), {}, "is always 0"),
    "softmax of one": (
        network([node("Softmax", "scores", "out", axis=1)], ["out"], classes=1), {},
        "softmax over one class",
    ),
    "last wins": (
        network([node("ArgMax", "scores", "out", axis=1, select_last_index=1)], ["out"]), {},
        r"in ArgMax \(node 'the ArgMax to .*'\) the last of equal scores wins",
    ),
    "labels made larger": (
        network(
            [KEPT, node("Cast", "kept", "f", to=FLOAT),
             helper.make_node("Resize", ["f", "", "", "to"], ["out"], mode="nearest")],
            ["out"], constants={"to": I64(1, 1, 64, 80)}, stride=2,
        ),
        {}, "is made of what ArgMax .* has decided",
    ),
    "labels times 255": (
        network([ARGMAX, node("Mul", "labels by", "out")], ["out"], constants={"by": I64(255)}),
        {}, r"is made of what ArgMax \(node 'the ArgMax to labels'\) has decided",
    ),
    "scores rounded": (
        network([node("Round", "scores", "r"), node("Cast", "r", "out", to=INT64)], ["out"]),
        {}, "comes from no ArgMax",
    ),
    "a mask of two colours": (
        network(
            [node("Greater", "scores half", "m"), node("Where", "m seven nine", "out")], ["out"],
            constants=HALF | {"seven": I64(7), "nine": I64(9)},
        ),
        {}, "is made of what Greater .* has decided",
    ),
    "two maps compared": (
        network(
            [node("Mul", "scores scores", "s"), node("Greater", "scores s", "out")], ["out"]
        ),
        {}, r"Greater \(node 'the Greater to out'\) .* compares with something else",
    ),
    "threshold of labels": (network([ARGMAX], ["labels"]), {"threshold": 0.5}, "--threshold goes"),
    "threshold of a file's own": (
        network(MASKS["score above"][0], ["out"], classes=1, constants=HALF), {"threshold": 0.5},
        "'out' is a mask, which takes no threshold",
    ),
    "threshold of no probability": (
        network([SIGMOID], ["p"], classes=1), {"threshold": 1.5}, "between 0 and 1",
    ),
    "masks of a softmax": (
        network([node("Softmax", "scores", "p", axis=1)], ["p"]), {"output": "masks"},
        "exclude each other",
    ),
    "masks of one class": (network(classes=1), {"output": "masks"}, "has one class"),
    "mean of three for grey": (
        network(channels=1), {"mean": (0.5, 0.5, 0.5)}, "--mean has 3 numbers, .* 1 channels",
    ),
    "mean of bytes": (
        network(), {"mean": (123.675, 116.28, 103.53)}, "divided by 255: --mean 0.485,0.456,0.406",
    ),
    "too small": (network(size=Resolution(32, 64)), {}, "both sides must lie between 64"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case, tmp_path):
    model, options, message = REFUSED[case]
    if case == "two inputs":
        model.graph.input.append(helper.make_tensor_value_info("y", FLOAT, [1, 3, 64, 64]))
    with pytest.raises(UserError, match=message) as caught:
        read(model, tmp_path, **options)
    assert "\n" not in str(caught.value)
