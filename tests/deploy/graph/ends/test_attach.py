import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from deploy.graph.ends import inspect_ends, with_logits_output
from deploy.resolution import Resolution
from tests.deploy.graphs import deployable, model_of, photo, segmenter


def run(model: onnx.ModelProto, image: np.ndarray) -> list[np.ndarray]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"image": image[None]})


def inspect(model: onnx.ModelProto):
    return inspect_ends(onnx.shape_inference.infer_shapes(model, strict_mode=True))


def pointwise(
    nodes: list[onnx.NodeProto],
    output: tuple[str, int, list[int]] = ("out", TensorProto.FLOAT, [1, 3, 64, 64]),
    extra_outputs: tuple = (),
    weights: dict[str, np.ndarray] | None = None,
) -> onnx.ModelProto:
    """A graph from ``x`` float (1, 3, 64, 64)."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 64, 64])
    outputs = [helper.make_tensor_value_info(*o) for o in (output, *extra_outputs)]
    return model_of(nodes, [x], outputs, weights or {})


def test_what_is_found():
    ends = inspect(segmenter(stride=8, end="argmax-squeeze"))
    assert ends.resolution == Resolution(64, 64)
    assert ends.scores_size == Resolution(8, 8)
    assert (ends.input.is_uint8, ends.end, ends.num_classes) == (False, "labels", 5)
    ends = inspect(segmenter(stride=1, layout="uint8", size=Resolution(64, 80)))
    assert ends.resolution == Resolution(64, 80) == ends.scores_size
    assert (ends.input.is_uint8, ends.end) == (True, "scores")


# A user's names: each clashes with what the ends are called, in another place of the graph.
CLASHES = {
    "input is image": {"input": "image"},
    "input is labels": {"input": "labels"},
    "inner is image": {"features": "image"},
    "weight is image": {"w1": "image"},
    "inner is labels": {"features": "labels"},
    "inner is logits": {"activated": "logits"},
    "scores are labels": {"scores": "labels"},
    "scores are logits": {"scores": "logits"},
    "index is labels": {"index": "labels"},
    "cast is logits": {"cast": "logits"},
    "all swapped": {"input": "logits", "features": "image", "scores": "labels"},
    "ours inside": {"features": "hmseg_scaled", "scores": "hmseg_class_index", "w1": "hmseg_scale"},
    "the free name": {"features": "image", "activated": "inner_image_0"},
}


@pytest.mark.parametrize("end", ["scores", "argmax-squeeze"])
@pytest.mark.parametrize("clash", CLASHES)
def test_names_inside_a_graph_never_clash_with_the_ends(clash, end, tmp_path):
    image = photo()
    for stride, layout in ((8, "float"), (1, "uint8")):
        plain = segmenter(stride=stride, layout=layout)
        renamed = segmenter(
            stride=stride, layout=layout, end=end, names=lambda n: CLASHES[clash].get(n, n)
        )
        for output in ("labels", "logits"):
            expected = run(deployable(plain, tmp_path, output), image)
            model = deployable(renamed, tmp_path, output)
            onnx.checker.check_model(model, full_check=True)
            np.testing.assert_array_equal(run(model, image), expected)


def test_of_equal_scores_the_lowest_class_wins(tmp_path):
    zeros = pointwise(
        [helper.make_node("Mul", ["x", "zero"], ["out"])],
        weights={"zero": np.zeros((1, 3, 1, 1), np.float32)},
    )
    assert not run(deployable(zeros, tmp_path), photo())[0].any()
    # Classes 1 and 2 equal and above 0 everywhere.
    bias = np.array([0, 1, 1], np.float32).reshape(1, 3, 1, 1)
    tie = pointwise(
        [
            helper.make_node("Mul", ["x", "zero"], ["z"]),
            helper.make_node("Add", ["z", "bias"], ["out"]),
        ],
        weights={"zero": np.zeros((1, 3, 1, 1), np.float32), "bias": bias},
    )
    assert (run(deployable(tie, tmp_path), photo())[0] == 1).all()


def test_the_image_end_is_exact_arithmetic(tmp_path):
    identity = pointwise([helper.make_node("Identity", ["x"], ["out"])])
    image = np.arange(256, dtype=np.uint8).repeat(48).reshape(64, 64, 3)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    (got,) = run(deployable(identity, tmp_path, "logits", mean, std), image)
    expected = ((image / 255.0 - mean) / std).transpose(2, 0, 1)[None]
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_with_logits_output(tmp_path):
    labels = deployable(segmenter(), tmp_path, "labels")
    both = with_logits_output(labels)
    assert [o.name for o in both.graph.output] == ["labels", "hmseg_logits"]
    assert len(labels.graph.output) == 1  # the original is as it was
    index, scores = run(both, photo())
    np.testing.assert_array_equal(index, scores.argmax(1))
    logits = deployable(segmenter(), tmp_path, "logits")
    assert with_logits_output(logits) is logits
