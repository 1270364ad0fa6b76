"""The evaluation in double against onnxruntime, operator by operator."""

import math

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from deploy.graph.float64 import evaluate, multiply_adds
from deploy.graph.float64_resize import NoTruthError
from tests.deploy.graphs import model_of, photo, segmenter

RNG = np.random.default_rng(0)
Weights = dict[str, np.ndarray]


def weight(*shape: int) -> np.ndarray:
    return RNG.normal(0, 1, shape).astype(np.float32)


def positive(*shape: int) -> np.ndarray:
    return RNG.uniform(0.5, 2, shape).astype(np.float32)


def one_node(op: str, weights: Weights, opset: int = 20, **attributes) -> onnx.ModelProto:
    """A graph of x (1, 6, 9, 11) and one node that reads it and the weights, in their order; an
    input whose name starts with "none" is left out."""
    names = ["" if name.startswith("none") else name for name in weights]
    return model_of(
        [helper.make_node(op, ["x", *names], ["y"], **attributes)],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 6, 9, 11])],
        [helper.make_empty_tensor_value_info("y")],
        {name: value for name, value in weights.items() if name and not name.startswith("none")},
        opset,
    )


def sizes(*values: int) -> Weights:
    return {"none1": weight(), "none2": weight(), "sizes": np.array(values, np.int64)}


def scales(*values: float) -> Weights:
    return {"none1": weight(), "scales": np.array(values, np.float32)}


UP, DOWN = sizes(1, 6, 20, 15), sizes(1, 6, 4, 5)
RESIZES = {
    f"Resize {mode} {kind} {name}": ("Resize", given, {
        "mode": mode, "coordinate_transformation_mode": kind,
    })
    for mode in ("linear", "nearest", "cubic")
    for kind in ("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel",
                 "half_pixel_symmetric")
    for name, given in (("up", UP), ("down", DOWN), ("scales", scales(1, 1, 1.7, 0.65)))
    # A scale in float32 is not that in double: a source half way between two pixels goes to either.
    if (mode, name) != ("nearest", "scales")
}  # fmt: skip
REGION = {"roi": np.array([0, 0, 0.25, -0.125, 1, 1, 0.75, 0.875], np.float32)}
CROPPED = {
    "mode": "linear", "coordinate_transformation_mode": "tf_crop_and_resize",
    "extrapolation_value": 7.0,
}  # fmt: skip
CASES: dict[str, tuple[str, Weights, dict]] = {
    "Conv": ("Conv", {"w": weight(4, 6, 3, 3), "b": weight(4)}, {"pads": [1, 0, 2, 1]}),
    "Conv dilated, grouped": (
        "Conv", {"w": weight(6, 2, 3, 2)}, {"group": 3, "dilations": [2, 3], "strides": [2, 1]},
    ),
    "Conv depthwise": ("Conv", {"w": weight(6, 1, 3, 2), "b": weight(6)}, {
        "group": 6, "dilations": [2, 1], "strides": [2, 3], "pads": [2, 1, 0, 1],
    }),
    "Conv same upper": ("Conv", {"w": weight(4, 6, 4, 3)}, {
        "auto_pad": "SAME_UPPER", "strides": [2, 2],
    }),
    "Conv same lower": ("Conv", {"w": weight(4, 6, 4, 3)}, {"auto_pad": "SAME_LOWER"}),
    "Conv valid": ("Conv", {"w": weight(4, 6, 4, 3)}, {"auto_pad": "VALID"}),
    "ConvTranspose": ("ConvTranspose", {"w": weight(6, 4, 3, 3), "b": weight(4)}, {
        "strides": [2, 2], "pads": [1, 0, 1, 1], "output_padding": [1, 1],
    }),
    "ConvTranspose grouped": ("ConvTranspose", {"w": weight(6, 2, 2, 3)}, {
        "group": 3, "strides": [2, 3], "dilations": [1, 2],
    }),
    "MaxPool": ("MaxPool", {}, {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 1]}),
    "MaxPool ceil": ("MaxPool", {}, {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
    "MaxPool dilated": ("MaxPool", {}, {"kernel_shape": [3, 3], "dilations": [2, 1]}),
    "MaxPool same": ("MaxPool", {}, {
        "kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_LOWER",
    }),
    "AveragePool": ("AveragePool", {}, {
        "kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1],
    }),
    "AveragePool padded": ("AveragePool", {}, {
        "kernel_shape": [3, 3], "strides": [2, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1,
    }),
    "AveragePool ceil": ("AveragePool", {}, {
        "kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1,
    }),
    "BatchNormalization": ("BatchNormalization", {
        "s": weight(6), "b": weight(6), "m": weight(6), "v": positive(6),
    }, {"epsilon": 1e-3}),
    "InstanceNormalization": ("InstanceNormalization", {"s": weight(6), "b": weight(6)}, {}),
    "LayerNormalization": ("LayerNormalization", {"s": weight(11), "b": weight(11)}, {}),
    "LayerNormalization of two": ("LayerNormalization", {"s": weight(9, 11)}, {"axis": 2}),
    "GroupNormalization": ("GroupNormalization", {"s": weight(3), "b": weight(3)}, {
        "num_groups": 3,
    }),
    "MeanVarianceNormalization": ("MeanVarianceNormalization", {}, {}),
    "Resize of a region": ("Resize", REGION | {"none": weight(), "sizes": UP["sizes"]}, CROPPED),
    "Gelu": ("Gelu", {}, {}),
    "Gelu tanh": ("Gelu", {}, {"approximate": "tanh"}),
    "HardSigmoid": ("HardSigmoid", {}, {"alpha": 0.3}),
    "PRelu": ("PRelu", {"s": weight(6, 1, 1)}, {}),
    "MatMul": ("MatMul", {"w": weight(11, 4)}, {}),
    "Softmax": ("Softmax", {}, {"axis": 1}),
    "ReduceMean": ("ReduceMean", {"axes": np.array([2, 3])}, {}),
    "Transpose": ("Transpose", {}, {"perm": [0, 2, 3, 1]}),
    "QuantizeLinear": ("QuantizeLinear", {
        "s": np.array(0.05, np.float32), "z": np.array(100, np.uint8),
    }, {}),
    "QuantizeLinear per axis": ("QuantizeLinear", {
        "s": positive(6) / 9, "z": np.zeros(6, np.int8),
    }, {"axis": 1}),
    **{op: (op, {}, {}) for op in (
        "Erf", "Sigmoid", "HardSwish", "Mish", "Softplus", "Tanh", "Relu", "Elu", "Softsign",
    )},
    **RESIZES,
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_an_operator_is_onnxruntimes(name):
    op, weights, attributes = CASES[name]
    model = one_node(op, weights, **attributes)
    x = np.random.default_rng(1).normal(0, 2, (1, 6, 9, 11)).astype(np.float32)
    wanted = ort.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]
    (found,) = evaluate(model, x)
    assert found.shape == wanted.shape
    assert found.dtype == (np.float64 if wanted.dtype == np.float32 else wanted.dtype)
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=2e-5)


def test_it_is_double():
    """A sum that float32 loses."""
    model = one_node("Add", {"c": np.array(2.0**20, np.float32)})
    x = np.full((1, 6, 9, 11), 2.0**-10, np.float32)
    assert (evaluate(model, x)[0] == 2.0**20 + 2.0**-10).all()


def test_a_cast_to_float_stays_double_and_one_to_int_is_an_int():
    x = np.full((1, 6, 9, 11), 1.0, np.float32)
    assert evaluate(one_node("Cast", {}, to=TensorProto.FLOAT16), x)[0].dtype == np.float64
    assert evaluate(one_node("Cast", {}, to=TensorProto.UINT8), x)[0].dtype == np.uint8


def test_a_whole_graph_from_its_middle(small_graph):
    image = photo()[None]
    names = ["features", "activated", "scores"]
    features, activated, scores = evaluate(small_graph, image, names)
    assert len(evaluate(small_graph, image)) == 1
    again = evaluate(small_graph, features, ["scores"], start="features")[0]
    np.testing.assert_array_equal(again, scores)
    np.testing.assert_array_equal(activated, features.clip(0, 6))
    with pytest.raises(NoTruthError, match="does not follow"):
        evaluate(small_graph, activated, ["features"], start="activated")


@pytest.mark.parametrize(
    ("op", "weights", "attributes"),
    [
        ("LRN", {}, {"size": 3}),
        ("Resize", UP, {"mode": "linear", "antialias": 1}),
        ("Resize", UP, {"mode": "linear", "coordinate_transformation_mode": "tf_crop_and_resize"}),
        ("Resize", REGION | {"scales": np.array([1, 1, 2, 4], np.float32)}, CROPPED),
        ("ConvTranspose", {"w": weight(6, 4, 3, 3)}, {"output_shape": [18, 22]}),
        ("AveragePool", {}, {"kernel_shape": [2, 2], "dilations": [2, 2]}),
        ("Reshape", {"s": np.array([5, -1])}, {}),  # fails in numpy
    ],
)
def test_what_is_not_evaluated(op, weights, attributes):
    with pytest.raises(NoTruthError):
        evaluate(one_node(op, weights, **attributes), weight(1, 6, 9, 11))


class TestMultiplyAdds:
    def count(self, op: str, weights: Weights, **attributes) -> float:
        model = one_node(op, weights, **attributes)
        return multiply_adds(onnx.shape_inference.infer_shapes(model, strict_mode=True))

    def test_each_kind(self):
        pads = [1, 1, 1, 1]
        assert self.count("Conv", {"w": weight(4, 6, 3, 3)}, pads=pads) == 4 * 9 * 11 * 6 * 9
        assert self.count("Conv", {"w": weight(6, 1, 3, 3)}, pads=pads, group=6) == 6 * 99 * 9
        assert self.count("ConvTranspose", {"w": weight(6, 4, 2, 2)}) == 6 * 99 * 4 * 4
        assert self.count("MatMul", {"w": weight(11, 5)}) == 6 * 9 * 5 * 11
        assert self.count("Relu", {}) == 0

    def test_a_size_that_is_not_known_is_too_much(self):
        model = one_node("Conv", {"w": weight(4, 6, 3, 3)})
        model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
        assert multiply_adds(onnx.shape_inference.infer_shapes(model)) == math.inf

    def test_a_network(self, small_graph):
        assert multiply_adds(small_graph) == 8 * 8 * 8 * 27 + 8 * 8 * 5 * 8


def test_the_graph_is_left_as_it_is():
    model = segmenter()
    before = model.SerializeToString()
    evaluate(model, weight(1, 3, 64, 64))
    assert model.SerializeToString() == before
