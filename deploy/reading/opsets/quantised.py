"""QuantizeLinear and DequantizeLinear, which remain, and products of integers that give integers.

What is quantised stays on its grid. A convolution or a product of integers whose result is integers
too is one of whole float32 numbers, which float32 holds exactly up to 2^24. Operators that round
what they compute to a grid are those of `qlinear.py`.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from deploy.reading.float32 import to_float32
from deploy.reading.graph import Node
from deploy.reading.opsets.grids import (
    as_float,
    by_rule,
    dequantised,
    end_quantised,
    scale_of,
    shifted,
    zero_of,
)
from deploy.reading.opsets.rule import Rule, needed, parameter
from deploy.reading.writer import Writer


def _quantize(writer: Writer, node: Node, opset: int) -> None:
    scale = scale_of(writer, node, 1)
    element = node.get("output_dtype") or TensorProto.UINT8
    if name := node.input(2):
        element = writer.graph.types[name].element
    zero = zero_of(writer, node, 2, element, scale)
    x = as_float(writer, node.inputs[0])
    end_quantised(writer, x, _along(writer, node, scale), _along(writer, node, zero))


def _dequantize(writer: Writer, node: Node, opset: int) -> None:
    x, scale = node.inputs[0], scale_of(writer, node, 1)
    zero = zero_of(writer, node, 2, writer.graph.types[x].element, scale)
    y = dequantised(writer, x, _along(writer, node, scale), _along(writer, node, zero))
    writer.nodes[-1].outputs = node.outputs[:1]
    writer.graph.types[node.outputs[0]] = writer.graph.types.pop(y)


def _along(writer: Writer, node: Node, value: NDArray[Any]) -> NDArray[Any]:
    """A scale or zero point as a number, or as (C, 1, 1) where the axis is the channels'."""
    if node.get("block_size", 0):
        raise node.error("it is quantised in blocks, which only constants may be; export the "
                         "network with one scale for each tensor")  # fmt: skip
    if value.size == 1:
        return value.reshape(())
    shape, axis = writer.graph.shape(node.inputs[0]), node.get("axis", 1)
    if value.ndim != 1 or not -len(shape) <= axis < len(shape) or value.size != shape[axis]:
        raise node.error(f"{value.size} scales along axis {axis} of a map of "
                         f"{'x'.join(map(str, shape))}; the file is not valid ONNX")  # fmt: skip
    return value.reshape(-1, *(1 for _ in range(len(shape) - 1 - axis % len(shape))))


def _dynamic(writer: Writer, node: Node, opset: int) -> None:
    raise node.error(
        "it finds a scale for each image; quantise the network statically, with the scales fixed "
        "(onnxruntime.quantization.quantize_static)"
    )


def _conv_integer(writer: Writer, node: Node, opset: int) -> None:
    x = shifted(writer, node.inputs[0], parameter(writer, node, 2, "zero point"))
    w = to_float32(needed(writer, node, 1, "weights"))
    zero = parameter(writer, node, 3, "zero point")
    if zero is not None:
        w = w - to_float32(zero).reshape(-1, *(1 for _ in w.shape[1:]))
    inputs = [x, writer.constant(w.astype(np.float32))]
    y = by_rule(writer, node, "Conv", inputs, node.attributes)
    writer.end("Cast", y, to=TensorProto.INT32)


def _matmul_integer(writer: Writer, node: Node, opset: int) -> None:
    a_zero, b_zero = (parameter(writer, node, i, "zero point") for i in (2, 3))
    if a_zero is not None and a_zero.ndim == 1 and a_zero.size > 1:
        a_zero = a_zero.reshape(-1, 1)  # of each row
    a, b = shifted(writer, node.inputs[0], a_zero), shifted(writer, node.inputs[1], b_zero)
    writer.end("Cast", writer("MatMul", a, b), to=TensorProto.INT32)


RULES: dict[tuple[str, str], Rule] = {
    ("", "ConvInteger"): _conv_integer,
    ("", "MatMulInteger"): _matmul_integer,
    ("", "DynamicQuantizeLinear"): _dynamic,
    **{(domain, "QuantizeLinear"): _quantize for domain in ("", "com.microsoft")},
    **{(domain, "DequantizeLinear"): _dequantize for domain in ("", "com.microsoft")},
}
