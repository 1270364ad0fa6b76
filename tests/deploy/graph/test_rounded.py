"""The rounded graph against numpy, and which values stay as they are."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from deploy.cpu.elements import from_bfloat16, to_bfloat16
from deploy.graph.expected import MOST_NOISE, Expectations, rounding_noise
from deploy.graph.reference import OnnxSession
from deploy.graph.rounded import scores_of, with_rounded_maps
from deploy.noise import Deviation
from deploy.precision import BF16

RNG = np.random.default_rng(4)
SIZE = 6


def rounded(values):
    return from_bfloat16(to_bfloat16(np.asarray(values, np.float32)))


def network() -> onnx.ModelProto:
    """Two 1x1 convolutions with a Relu between them, and a resize of the scores."""
    nodes = [
        helper.make_node("Conv", ["x", "w0", "b0"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("Conv", ["b", "w1"], ["c"], name="second"),
        helper.make_node("Resize", ["c", "", "scales"], ["y"], mode="linear", name="resize"),
    ]
    weights = {
        "w0": RNG.normal(size=(16, 3, 1, 1)), "b0": RNG.normal(size=16),
        "w1": RNG.normal(size=(5, 16, 1, 1)), "scales": np.array([1, 1, 2, 2]),
    }  # fmt: skip
    graph = helper.make_graph(
        nodes, "n", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 5, 2 * SIZE, 2 * SIZE])],
        [numpy_helper.from_array(v.astype(np.float32), name) for name, v in weights.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    model.ir_version = 9
    return onnx.shape_inference.infer_shapes(model)


def test_it_computes_what_numpy_does():
    model, image = network(), RNG.normal(size=(3, SIZE, SIZE)).astype(np.float32)
    w0, b0, w1 = (numpy_helper.to_array(t) for t in list(model.graph.initializer)[:3])
    first = np.einsum("oi,ihw->ohw", rounded(w0[..., 0, 0]), image) + b0[:, None, None]
    second = np.einsum("oi,ihw->ohw", rounded(w1[..., 0, 0]), np.maximum(rounded(first), 0))
    session = OnnxSession(with_rounded_maps(model, "bfloat16"), optimised=False)
    (scores,) = session.run(image)
    # At the corners a linear resize by two gives the scores themselves.
    np.testing.assert_allclose(scores[:, [0, -1], [0, -1]], second[:, [0, -1], [0, -1]], rtol=1e-5)
    assert not np.array_equal(scores, OnnxSession(model).run(image)[0])


def test_scores_are_not_rounded_and_the_model_is_not_changed():
    model = network()
    before = model.SerializeToString()
    assert scores_of(model) == {"c", "y"}
    changed = with_rounded_maps(model, "bfloat16")
    narrowed = {n.name for n in changed.graph.node if n.op_type == "Cast" and "narrow" in n.name}
    assert narrowed == {"w0_rounded_narrow", "w1_rounded_narrow", "a_narrow", "b_narrow"}
    assert [value.name for value in changed.graph.output] == ["y"]
    onnx.checker.check_model(changed)
    assert model.SerializeToString() == before


class TestNoise:
    IMAGE = RNG.normal(size=(3, SIZE, SIZE)).astype(np.float32)

    def test_of_a_network(self):
        """More than float32's by what the types differ in, less than the scores."""
        model, given = network(), {"image": self.IMAGE}
        low = Expectations(model, given, maps="bfloat16")
        plain, rough = Expectations(model, given)["image"], low["image"]
        np.testing.assert_array_equal(plain.scores, rough.scores)
        assert 1e3 < rough.noise.rms / plain.noise.rms < 1e6
        size = Deviation.size(rough.scores)
        assert BF16.unit * size.rms <= rough.noise.rms < 8 * BF16.unit * size.rms
        assert not low.look_closer("image")

    def test_at_least_one_rounding_and_at_most_a_share(self):
        scores = RNG.normal(size=(4, 9, 9))
        size = Deviation.size(scores)
        assert rounding_noise(scores, scores, self.IMAGE, BF16.unit) == size * BF16.unit
        assert rounding_noise(-scores, scores, self.IMAGE, BF16.unit) == size * MOST_NOISE

    def test_of_one_colour_the_largest_counts(self):
        scores = np.ones((4, 9, 9))
        off = scores.copy()
        off[0, 0, 0] += 0.02
        grey = np.full((3, SIZE, SIZE), 0.5, np.float32)
        noise = rounding_noise(off, scores, grey, BF16.unit)
        assert noise.rms == noise.largest == np.float64(off[0, 0, 0] - 1)
