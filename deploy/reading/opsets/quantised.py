"""Quantised operators in float32, with their exact meaning.

What is quantised stays on its grid: QuantizeLinear and DequantizeLinear remain. A convolution or a
product of integers is one of whole float32 numbers, which float32 holds exactly up to 2^24; the sum
is scaled, rounded half to even and saturated as the integer kernels do it.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from deploy.reading.float32 import to_float32
from deploy.reading.graph import Node
from deploy.reading.opsets.rule import Rule, needed, parameter
from deploy.reading.writer import Writer

_IN_OPSET_20 = (TensorProto.INT8, TensorProto.UINT8)


def _quantize(writer: Writer, node: Node, opset: int) -> None:
    x, scale = node.inputs[0], needed(writer, node, 1, "scale")
    zero = parameter(writer, node, 2, "zero point")
    if zero is None:
        element = node.get("output_dtype") or TensorProto.UINT8
        zero = np.zeros(scale.shape, helper.tensor_dtype_to_np_dtype(element))
    x = _float(writer, x)
    scale, zero = _along(writer, node, scale), _along(writer, node, zero)
    _end_quantized(writer, node, x, scale, zero)


def _dequantize(writer: Writer, node: Node, opset: int) -> None:
    x, scale = node.inputs[0], needed(writer, node, 1, "scale")
    zero = parameter(writer, node, 2, "zero point")
    element = writer.graph.types[x].element
    if zero is None or not zero.any():
        zero = np.zeros(scale.shape, helper.tensor_dtype_to_np_dtype(element))
    _end_dequantized(writer, node, x, _along(writer, node, scale), _along(writer, node, zero))


def _along(writer: Writer, node: Node, value: NDArray[Any]) -> NDArray[Any]:
    """A scale or zero point as a number, or as (C, 1, 1) where the axis is the channels'."""
    if node.get("block_size", 0):
        raise node.error("it is quantised in blocks, which only constants may be; export the "
                         "network with one scale for each tensor")  # fmt: skip
    if value.size == 1:
        return value.reshape(())
    rank = writer.graph.rank(node.inputs[0])
    after = rank - 1 - node.get("axis", 1) % rank
    return value.reshape(-1, *(1 for _ in range(after)))


def _end_quantized(
    writer: Writer, node: Node, x: str, scale: NDArray[Any], zero: NDArray[Any]
) -> None:
    """Write float32 `x` onto the grid of a scale and a zero point."""
    element = helper.np_dtype_to_tensor_dtype(zero.dtype)
    if element in _IN_OPSET_20 and scale.ndim == zero.ndim == 0:
        inputs = (writer.constant(to_float32(scale)), writer.constant(zero))
        writer.end("QuantizeLinear", x, *inputs)
        return
    scaled = writer("Div", x, writer.constant(to_float32(scale)))
    _end_rounded(writer, scaled, zero)


def _end_rounded(writer: Writer, x: str, zero: NDArray[Any]) -> None:
    """Round half to even, add the zero point, saturate, and make it integers of its type."""
    try:
        limits = np.iinfo(zero.dtype)
    except ValueError:
        raise writer.like.error(f"numbers of {zero.dtype} are not read; export the network with "
                                "int8 or uint8") from None  # fmt: skip
    x = writer("Round", x)
    if zero.any():
        x = writer("Add", x, writer.constant(to_float32(zero)))
    x = writer("Clip", x, writer.constant(float(limits.min)), writer.constant(float(limits.max)))
    writer.end("Cast", x, to=helper.np_dtype_to_tensor_dtype(zero.dtype))


def _end_dequantized(
    writer: Writer, node: Node, x: str, scale: NDArray[Any], zero: NDArray[Any]
) -> None:
    if writer.graph.types[x].element in _IN_OPSET_20 and scale.ndim == zero.ndim == 0:
        inputs = (writer.constant(to_float32(scale)), writer.constant(zero))
        writer.end("DequantizeLinear", x, *inputs)
        return
    writer.end("Mul", _shifted(writer, x, zero), writer.constant(to_float32(scale)))


def _float(writer: Writer, x: str) -> str:
    """A tensor as float32, cast where it is of integers."""
    if writer.graph.types[x].element == TensorProto.FLOAT:
        return x
    return writer("Cast", x, to=TensorProto.FLOAT)


def _shifted(writer: Writer, x: str, zero: NDArray[Any] | None) -> str:
    """Integers less their zero point, as whole float32 numbers."""
    x = _float(writer, x)
    if zero is None or not zero.any():
        return x
    return writer("Sub", x, writer.constant(to_float32(zero)))


def _weights(writer: Writer, node: Node, index: int, zero: NDArray[Any] | None) -> str:
    """A convolution's weights less their zero point, of the whole tensor or of each output."""
    value = to_float32(needed(writer, node, index, "weights"))
    if zero is not None:
        value = value - to_float32(zero).reshape(-1, *(1 for _ in value.shape[1:]))
    return writer.constant(value.astype(np.float32))


def _qlinear_conv(writer: Writer, node: Node, opset: int) -> None:
    """x, its scale and zero point, w, its own, those of y, bias."""
    names = ("scale", "zero point")
    x_scale, x_zero = (needed(writer, node, i, n) for i, n in zip((1, 2), names, strict=True))
    w_scale, w_zero = (needed(writer, node, i, n) for i, n in zip((4, 5), names, strict=True))
    y_scale, y_zero = (needed(writer, node, i, n) for i, n in zip((6, 7), names, strict=True))
    inputs = [_shifted(writer, node.inputs[0], x_zero), _weights(writer, node, 3, w_zero)]
    bias = parameter(writer, node, 8, "bias")
    if bias is not None:
        inputs.append(writer.constant(to_float32(bias)))
    sums = _conv(writer, node, inputs)
    scale = (x_scale * w_scale / y_scale).astype(np.float32).reshape(-1)
    rank = writer.graph.rank(sums)
    shaped = scale.reshape(()) if scale.size == 1 else scale.reshape(-1, *([1] * (rank - 2)))
    _end_rounded(writer, writer("Mul", sums, writer.constant(shaped)), y_zero.reshape(()))


def _conv_integer(writer: Writer, node: Node, opset: int) -> None:
    x = _shifted(writer, node.inputs[0], parameter(writer, node, 2, "zero point"))
    w = _weights(writer, node, 1, parameter(writer, node, 3, "zero point"))
    writer.end("Cast", _conv(writer, node, [x, w]), to=TensorProto.INT32)


def _conv(writer: Writer, node: Node, inputs: list[str]) -> str:
    from deploy.reading.opsets.windows import RULES as WINDOWS

    inner = Writer(writer.graph, node)
    conv = Node("Conv", inputs, [writer.graph.fresh(node.outputs[0])], dict(node.attributes),
                node.name)  # fmt: skip
    WINDOWS["", "Conv"](inner, conv, 20)
    writer.nodes.extend(inner.nodes)
    return conv.outputs[0]


def _qlinear_matmul(writer: Writer, node: Node, opset: int) -> None:
    """a, its scale and zero point, b, its own, those of y; a scale is a number or one of a row of a
    or a column of b."""
    a_scale, b_scale, y_scale = (needed(writer, node, i, "scale") for i in (1, 4, 6))
    a_zero, b_zero, y_zero = (needed(writer, node, i, "zero point") for i in (2, 5, 7))
    a = _shifted(writer, node.inputs[0], _rows(a_zero))
    b = _shifted(writer, node.inputs[3], b_zero)
    scale = to_float32(_rows(a_scale) * b_scale / y_scale)
    scaled = writer("Mul", writer("MatMul", a, b), writer.constant(scale))
    _end_rounded(writer, scaled, y_zero.reshape(()))


def _matmul_integer(writer: Writer, node: Node, opset: int) -> None:
    a_zero, b_zero = (parameter(writer, node, i, "zero point") for i in (2, 3))
    a = _shifted(writer, node.inputs[0], None if a_zero is None else _rows(a_zero))
    b = _shifted(writer, node.inputs[1], b_zero)
    writer.end("Cast", writer("MatMul", a, b), to=TensorProto.INT32)


def _rows(value: NDArray[Any]) -> NDArray[Any]:
    return value.reshape(-1, 1) if value.size > 1 and value.ndim == 1 else value


def _read(writer: Writer, node: Node, index: int) -> str:
    """A quantised input in float32; its scale and zero point stand behind it."""
    scale = needed(writer, node, index + 1, "scale")
    zero = parameter(writer, node, index + 2, "zero point")
    x = _shifted(writer, node.inputs[index], zero)
    return writer("Mul", x, writer.constant(to_float32(scale.reshape(()))))


def _written(writer: Writer, node: Node, y: str, index: int, like: int) -> None:
    """End a node with its float32 result on the grid whose scale stands at `index`."""
    scale = needed(writer, node, index, "scale").reshape(())
    zero = parameter(writer, node, index + 1, "zero point")
    if zero is None:
        element = writer.graph.types[node.inputs[like]].element
        zero = np.zeros((), helper.tensor_dtype_to_np_dtype(element))
    _end_quantized(writer, node, y, scale, zero.reshape(()))


def _qlinear_binary(writer: Writer, node: Node, opset: int) -> None:
    op = node.op.removeprefix("QLinear")
    y = writer(op, _read(writer, node, 0), _read(writer, node, 3))
    _written(writer, node, y, 6, 0)


def _qlinear_unary(writer: Writer, node: Node, opset: int) -> None:
    attributes = dict(node.attributes)
    if attributes.pop("channels_last", 0):
        raise node.error("its channels stand last; save the network without onnxruntime's "
                         "optimisations")  # fmt: skip
    attributes.pop("opset", None)
    op = node.op.removeprefix("QLinear")
    _written(writer, node, writer(op, _read(writer, node, 0), **attributes), 3, 0)


def _qlinear_concat(writer: Writer, node: Node, opset: int) -> None:
    parts = [_read(writer, node, index) for index in range(2, len(node.inputs), 3)]
    _written(writer, node, writer("Concat", *parts, axis=node.get("axis")), 0, 2)


RULES: dict[tuple[str, str], Rule] = {
    ("", "QLinearConv"): _qlinear_conv,
    ("", "QLinearMatMul"): _qlinear_matmul,
    ("", "ConvInteger"): _conv_integer,
    ("", "MatMulInteger"): _matmul_integer,
    **{(domain, "QuantizeLinear"): _quantize for domain in ("", "com.microsoft")},
    **{(domain, "DequantizeLinear"): _dequantize for domain in ("", "com.microsoft")},
    **{("com.microsoft", f"QLinear{op}"): _qlinear_binary for op in ("Add", "Mul")},
    **{
        ("com.microsoft", f"QLinear{op}"): _qlinear_unary
        for op in ("LeakyRelu", "Sigmoid", "Softmax", "GlobalAveragePool", "AveragePool")
    },
    ("com.microsoft", "QLinearConcat"): _qlinear_concat,
}
