"""Quantised weights are stored as integers, and the graph computes what it did."""

import numpy as np
import onnxruntime as ort
from onnx import ModelProto, TensorProto, helper, numpy_helper

from deploy.graph.integers import store_integers


def graph_of(axis: int) -> tuple[ModelProto, np.ndarray]:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(4, 3, 1, 1)).astype(np.float32)
    channels = weight.shape[axis]
    constants = {
        "w": weight, "scale": rng.uniform(0.005, 0.02, channels).astype(np.float32),
        "zero": np.arange(channels, dtype=np.int8), "xs": np.float32(0.01), "xz": np.uint8(100),
    }  # fmt: skip
    tensors = [numpy_helper.from_array(np.array(v), k) for k, v in constants.items()]
    nodes = [
        helper.make_node("QuantizeLinear", ["w", "scale", "zero"], ["q"], axis=axis),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["dq"], axis=axis),
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "xs", "xz"], ["xdq"]),
        helper.make_node("Conv", ["xdq", "dq"], ["y"]),
    ]
    sides = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, c, 2, 2])
             for n, c in (("x", 3), ("y", 4))]  # fmt: skip
    graph = helper.make_graph(nodes, "g", sides[:1], sides[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    return model, weight


def run(model: ModelProto) -> np.ndarray:
    x = np.random.default_rng(1).normal(size=(1, 3, 2, 2)).astype(np.float32)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def test_constants_alone_become_integers_with_the_same_numbers():
    for axis in (0, 1):
        model, weight = graph_of(axis)
        expected = run(model)
        store_integers(model)
        np.testing.assert_array_equal(run(model), expected)
        kinds = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        assert "w" not in kinds  # nothing reads the float weights any more
        assert (kinds["q"].dtype, kinds["q"].shape) == (np.int8, weight.shape)
        assert [n.input[0] for n in model.graph.node if n.op_type == "QuantizeLinear"] == ["x"]
