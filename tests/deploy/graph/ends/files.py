"""Users' files with any ends: a small network, and nodes behind it."""

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from deploy.resolution import Resolution
from tests.deploy.graphs import model_of

SIZE = Resolution(64, 80)
FLOAT, UINT8, INT64, BOOL = (
    TensorProto.FLOAT, TensorProto.UINT8, TensorProto.INT64, TensorProto.BOOL,
)  # fmt: skip


def node(op: str, inputs: str, output: str, **attributes: object) -> onnx.NodeProto:
    """A node whose inputs are written with spaces between them."""
    name = f"the {op} to {output}"
    return helper.make_node(op, inputs.split(), [output], name=name, **attributes)


def network(
    tail: Sequence[onnx.NodeProto] = (),
    outputs: Sequence[str] = ("scores",),
    *,
    classes: int = 5,
    channels: int = 3,
    stride: int = 1,
    layout: str = "NCHW",
    element: int = FLOAT,
    size: Resolution = SIZE,
    constants: dict[str, np.ndarray] | None = None,
    opset: int = 20,
) -> onnx.ModelProto:
    """``x`` -> 3x3 convolution -> relu -> 1x1 convolution to ``scores`` (1, K, h, w) -> `tail`,
    with shapes inferred. `layout` and `element` are the input's."""
    rng = np.random.default_rng(0)
    weights = {
        "w1": rng.normal(0, 0.4, (8, channels, 3, 3)).astype(np.float32),
        "w2": rng.normal(0, 0.5, (classes, 8, 1, 1)).astype(np.float32),
        "b2": rng.normal(0, 0.5, classes).astype(np.float32),
    } | (constants or {})
    nodes, first = [], "x"
    if layout == "NHWC":
        nodes.append(node("Transpose", first, "planes", perm=[0, 3, 1, 2]))
        first = "planes"
    if element == UINT8:
        weights["by"] = np.array(1 / 64, np.float32)
        nodes += [node("Cast", first, "floats", to=FLOAT), node("Mul", "floats by", "small")]
        first = "small"
    nodes += [
        node("Conv", f"{first} w1", "conv", strides=[stride, stride], pads=[1, 1, 1, 1]),
        node("Relu", "conv", "relu"),
        node("Conv", "relu w2 b2", "scores"),
        *tail,
    ]
    height, width = size
    dims = [1, channels, height, width] if layout == "NCHW" else [1, height, width, channels]
    model = model_of(
        nodes,
        [helper.make_tensor_value_info("x", element, dims)],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        weights,
        opset,
    )
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    onnx.checker.check_model(inferred, full_check=True)
    return inferred


def run(model: onnx.ModelProto, given: np.ndarray, *names: str) -> list[np.ndarray]:
    """In onnxruntime; `names` may be any tensors."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    known = {value.name for value in copy.graph.output}
    infos = {value.name: value for value in copy.graph.value_info}
    copy.graph.output.extend(infos[name] for name in names if name not in known)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        copy.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(list(names) or None, {session.get_inputs()[0].name: given})
