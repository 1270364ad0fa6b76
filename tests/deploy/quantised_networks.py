"""Small networks as onnxruntime's own tool quantises them, in pairs (QDQ) and in operators of
integers (QOperator)."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)

SHAPE = (1, 3, 16, 24)
Form = Literal["QDQ", "QOperator"]


@dataclass(frozen=True)
class Way:
    """How a network is quantised. Weights are in 7 bits: without VNNI, onnxruntime's products of 8
    bits saturate."""

    form: Form
    per_channel: bool = True
    signed: bool = False  # maps in int8
    symmetric: bool = False  # zero points of maps are 0

    def __str__(self) -> str:
        said = (self.per_channel, "channels"), (self.signed, "signed"), (self.symmetric, "even")
        return "-".join([self.form, *(word for is_so, word in said if is_so)])


WAYS = [
    Way(form, *rest)
    for form in ("QOperator", "QDQ")
    for rest in ((True, False, False), (False, True, False), (True, True, True))
]


def network(resize: str = "linear") -> onnx.ModelProto:
    """Convolutions (dense, depthwise, 1x1), sums, a concatenation, pools, a gate by a sigmoid, a
    resize; of `SHAPE` to scores (1, 5, 8, 12)."""
    rng = np.random.default_rng(3)
    nodes: list[onnx.NodeProto] = []
    constants = {
        "zero": np.float32(0), "six": np.float32(6), "twice": np.array([1, 1, 2, 2], np.float32),
    }  # fmt: skip

    def node(op: str, inputs: str, output: str, **attributes: object) -> None:
        names = ["" if name == "-" else name for name in inputs.split()]
        nodes.append(helper.make_node(op, names, [output], name=f"node_{output}", **attributes))

    def conv(source: str, output: str, *shape: int, **attributes: object) -> None:
        fan = np.sqrt(np.prod(shape[1:]))
        constants[f"{output}_w"] = (rng.standard_normal(shape) / fan).astype(np.float32)
        constants[f"{output}_b"] = (rng.standard_normal(shape[0]) / 4).astype(np.float32)
        pads = [shape[-1] // 2] * 4
        node("Conv", f"{source} {output}_w {output}_b", output, pads=pads, **attributes)

    conv("x", "stem", 8, 3, 3, 3, strides=[2, 2])
    node("Relu", "stem", "stem_r")
    conv("stem_r", "wise", 8, 1, 3, 3, group=8)
    node("Clip", "wise zero six", "wise_r")
    conv("wise_r", "thin", 8, 8, 1, 1)
    node("Add", "thin stem_r", "sum")
    node("MaxPool", "sum", "small", kernel_shape=[2, 2], strides=[2, 2])
    conv("small", "dense", 16, 8, 3, 3)
    constants["dense_w"][3] = 0  # a channel that training has given up: its bias alone
    # No tie where the scale stays: a seventh of whole numbers has no halves, a tenth often.
    node("LeakyRelu", "dense", "leaky", alpha=1 / 7)
    # Of nine everywhere: means of four and of six, whose scale stays in pairs, are often ties.
    node("AveragePool", "leaky", "even", kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1)
    node("GlobalAveragePool", "leaky", "mean")
    conv("mean", "gate", 16, 16, 1, 1)
    node("Sigmoid", "gate", "gate_s")
    node("Mul", "even gate_s", "gated")
    node("Concat", "gated small", "both", axis=1)
    conv("both", "merged", 8, 24, 1, 1)
    where = "asymmetric" if resize == "nearest" else "half_pixel"
    node("Resize", "merged - twice", "large", mode=resize, nearest_mode="floor",
         coordinate_transformation_mode=where)  # fmt: skip
    node("Add", "large sum", "last")
    node("Relu", "last", "last_r")
    conv("last_r", "y", 5, 8, 1, 1)
    graph = helper.make_graph(
        nodes, "network", [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 5, 8, 12))],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def given(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(SHAPE).astype(np.float32)


class _Frames(CalibrationDataReader):
    def __init__(self) -> None:
        self._frames: Iterator[dict[str, np.ndarray]] = iter({"x": given(i)} for i in range(4))

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._frames, None)


def quantised(model: onnx.ModelProto, way: Way, folder: Path) -> onnx.ModelProto:
    """By `onnxruntime.quantization.quantize_static`, on frames of noise."""
    onnx.save(model, folder / "float.onnx")
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)  # which asks for other steps before
    try:
        quantize_static(
            folder / "float.onnx", folder / "quantised.onnx", _Frames(),
            quant_format=QuantFormat[way.form], per_channel=way.per_channel, reduce_range=True,
            activation_type=QuantType.QInt8 if way.signed else QuantType.QUInt8,
            weight_type=QuantType.QInt8, extra_options={"ActivationSymmetric": way.symmetric},
        )  # fmt: skip
    finally:
        logging.disable(level)
    return onnx.load(folder / "quantised.onnx")


def last_quantum(model: onnx.ModelProto) -> float:
    """The scale of a file's output, which a DequantizeLinear makes."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    (node,) = [n for n in model.graph.node if n.output[0] == model.graph.output[0].name]
    assert node.op_type == "DequantizeLinear"
    return float(numpy_helper.to_array(constants[node.input[1]]))
