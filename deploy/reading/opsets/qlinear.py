"""Operators of integers that round to a grid (QOperator files), as those of floats between
DequantizeLinear and QuantizeLinear: the one form that maps in 8 bits are compiled from.

ONNX says of QLinearConv and QLinearMatMul, and onnxruntime of its own (domain com.microsoft), that
they are this: integer sums, scaled, rounded half to even and saturated.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deploy.reading.float32 import to_float32
from deploy.reading.graph import Node
from deploy.reading.opsets.grids import by_rule, dequantised, end_quantised, scale_of, zero_of
from deploy.reading.opsets.rule import Rule, needed, parameter
from deploy.reading.writer import Writer


def _read(writer: Writer, node: Node, index: int) -> str:
    """A quantised map in float32; its scale and zero point stand behind it."""
    x, scale = _given(node, index), scale_of(writer, node, index + 1)
    zero = zero_of(writer, node, index + 2, writer.graph.types[x].element, scale)
    return dequantised(writer, x, _one(node, scale), _one(node, zero))


def _written(writer: Writer, node: Node, y: str, index: int, like: int) -> None:
    """End a node with its float32 result on the grid whose scale stands at `index`, in the type of
    the input at `like` where no zero point says it."""
    scale = scale_of(writer, node, index)
    said = node.input(index + 1) or _given(node, like)
    zero = zero_of(writer, node, index + 1, writer.graph.types[said].element, scale)
    end_quantised(writer, y, _one(node, scale), _one(node, zero))


def _given(node: Node, index: int) -> str:
    """The name of an input; raises UserError where it is left out."""
    if name := node.input(index):
        return name
    raise node.error(f"its input {index} (from 0) is missing; the file is not valid ONNX")


def _one(node: Node, value: NDArray[Any]) -> NDArray[Any]:
    if value.size != 1:
        raise node.error(f"a map with {value.size} scales; quantise it with one")
    return value.reshape(())


def _weights(
    writer: Writer, node: Node, index: int, axis: int, least: int = 2
) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Constant weights in float32, of at least so many axes, and their scales: one, or one for each
    output, along `axis`."""
    codes, scale = needed(writer, node, index, "weights"), scale_of(writer, node, index + 1)
    zero = parameter(writer, node, index + 2, "zero point")
    zero = np.zeros((), codes.dtype) if zero is None else zero
    if codes.ndim < least:
        raise node.error(f"its weights have {codes.ndim} axes; the file is not valid ONNX")
    outputs = codes.shape[axis]
    if not {scale.size, zero.size} <= {1, outputs} or zero.dtype != codes.dtype:
        raise node.error(
            f"{scale.size} scales and {zero.size} zero points in {zero.dtype} for weights of "
            f"{outputs} outputs in {codes.dtype}; the file is not valid ONNX"
        )
    shape = [-1 if i == axis % codes.ndim else 1 for i in range(codes.ndim)]
    whole = codes.astype(np.float64) - zero.astype(np.float64).reshape(shape)
    return to_float32(whole * scale.astype(np.float64).reshape(shape)), scale.reshape(-1)


def _bias(writer: Writer, node: Node, index: int, scale: NDArray[Any], outputs: int) -> list[str]:
    """A bias in units of its sums, in float32; none where it is left out."""
    bias = parameter(writer, node, index, "bias")
    if bias is None:
        return []
    if bias.dtype != np.int32:
        raise node.error(f"its bias is of {bias.dtype}, not of int32; the file is not valid ONNX")
    # Of a product it is broadcast.
    fits = bias.shape == (outputs,) or (
        node.op == "QGemm" and bias.ndim <= 2 and bias.shape[-1:] in ((outputs,), (1,), ())
    )
    if not fits:
        raise node.error(
            f"a bias of shape {bias.shape} for weights of {outputs} outputs; the file is not valid "
            "ONNX"
        )
    return [writer.constant(to_float32(bias.astype(np.float64) * scale))]


def _conv(writer: Writer, node: Node, opset: int) -> None:
    """x, its scale and zero point, w, its own, those of y, bias."""
    x = _read(writer, node, 0)
    weights, scale = _weights(writer, node, 3, axis=0, least=3)
    sums = scale.astype(np.float64) * scale_of(writer, node, 1).astype(np.float64).reshape(-1)
    inputs = [x, writer.constant(weights), *_bias(writer, node, 8, sums, len(weights))]
    y = by_rule(writer, node, "Conv", inputs, node.attributes)
    _written(writer, node, y, 6, 0)


def _matmul(writer: Writer, node: Node, opset: int) -> None:
    """a, its scale and zero point, b, its own, those of y."""
    factor = _given(node, 3)
    if factor in writer.graph.constants and writer.graph.rank(factor) > 1:
        b = writer.constant(_weights(writer, node, 3, axis=-1)[0])
    else:
        b = _read(writer, node, 3)
    _written(writer, node, writer("MatMul", _read(writer, node, 0), b), 6, 0)


def _gemm(writer: Writer, node: Node, opset: int) -> None:
    """onnxruntime's: a, its scale and zero point, b, its own, an int32 bias in units of the sums,
    and, where y is quantised, its own."""
    alpha, axis = node.get("alpha", 1.0), 0 if node.get("transB", 0) else -1
    weights, scale = _weights(writer, node, 3, axis=axis)
    sums = alpha * scale.astype(np.float64) * scale_of(writer, node, 1).reshape(-1)
    a = _read(writer, node, 0)
    inputs = [a, writer.constant(weights), *_bias(writer, node, 6, sums, weights.shape[axis])]
    y = by_rule(writer, node, "Gemm", inputs, node.attributes)
    if node.input(7):
        _written(writer, node, y, 7, 0)
    else:
        writer.end("Identity", y)


def _binary(writer: Writer, node: Node, opset: int) -> None:
    op = node.op.removeprefix("QLinear")
    y = writer(op, _read(writer, node, 0), _read(writer, node, 3))
    _written(writer, node, y, 6, 0)


def _unary(writer: Writer, node: Node, opset: int) -> None:
    attributes = dict(node.attributes)
    if attributes.pop("channels_last", 0):
        raise node.error("its channels stand last; save the network without onnxruntime's "
                         "optimisations")  # fmt: skip
    opset = attributes.pop("opset", 20)  # of QLinearSoftmax: that of the Softmax that it was
    op = node.op.removeprefix("QLinear")
    y = by_rule(writer, node, op, [_read(writer, node, 0)], attributes, opset)
    _written(writer, node, y, 3, 0)


def _concat(writer: Writer, node: Node, opset: int) -> None:
    parts = [_read(writer, node, index) for index in range(2, max(3, len(node.inputs)), 3)]
    _written(writer, node, writer("Concat", *parts, axis=node.get("axis")), 0, 2)


def _where(writer: Writer, node: Node, opset: int) -> None:
    parts = [_read(writer, node, index) for index in (1, 4)]
    _written(writer, node, writer("Where", _given(node, 0), *parts), 7, 1)


RULES: dict[tuple[str, str], Rule] = {
    ("", "QLinearConv"): _conv,
    ("", "QLinearMatMul"): _matmul,
    ("com.microsoft", "QGemm"): _gemm,
    **{("com.microsoft", f"QLinear{op}"): _binary for op in ("Add", "Mul")},
    **{
        ("com.microsoft", f"QLinear{op}"): _unary
        for op in ("LeakyRelu", "Sigmoid", "Softmax", "GlobalAveragePool", "AveragePool")
    },
    ("com.microsoft", "QLinearConcat"): _concat,
    ("com.microsoft", "QLinearWhere"): _where,
}
