"""Small graphs of maps for tests: shapes inferred, ready for `Wiring`."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CHANNELS, SIDE = 4, 8


def node(op: str, inputs: str, output: str, **attributes: object) -> onnx.NodeProto:
    """`inputs` are names with spaces between; ``-`` is one that is left out."""
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(op, names, [output], name=f"node_{output}", **attributes)


def conv(source: str, output: str, kernel: int = 1, **attributes: object) -> onnx.NodeProto:
    """Weights are `output`.weight, `output`.bias."""
    pads = [kernel // 2] * 4
    inputs = f"{source} {output}.weight {output}.bias"
    return node("Conv", inputs, output, pads=pads, **attributes)


def graph_of(
    nodes: Sequence[onnx.NodeProto], outputs: Sequence[str],
    constants: Mapping[str, np.ndarray] | None = None, seed: int = 0,
) -> onnx.ModelProto:  # fmt: skip
    """Of the input ``x``, float32 (1, 4, 8, 8); weights of convolutions, 1x1 unless padded, are
    random."""
    rng = np.random.default_rng(seed)
    values = {
        "zero": np.float32(0), "six": np.float32(6), "half": np.array([1, 1, 0.5, 0.5], np.float32),
        "twice": np.array([1, 1, 2, 2], np.float32), "axes": np.array([2, 3], np.int64),
    } | dict(constants or {})  # fmt: skip
    for one in nodes:
        if one.op_type == "Conv" and one.input[1] == f"{one.output[0]}.weight":
            attributes = {a.name: helper.get_attribute_value(a) for a in one.attribute}
            kernel, groups = 2 * attributes["pads"][0] + 1, attributes.get("group", 1)
            shape = CHANNELS, CHANNELS // groups, kernel, kernel
            values[one.input[1]] = rng.normal(0, 0.6, shape).astype(np.float32)
            values[one.input[2]] = rng.normal(0, 0.5, CHANNELS).astype(np.float32)
    used = {name for one in nodes for name in one.input}
    graph = helper.make_graph(
        list(nodes), "maps",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, CHANNELS, SIDE, SIDE])],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in values.items() if k in used],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
