"""Numbers on a grid, value = (q - zero point) * scale: what rules of quantised operators share."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from deploy.reading.float32 import to_float32
from deploy.reading.graph import Node
from deploy.reading.opsets.rule import needed, parameter
from deploy.reading.writer import Writer

IN_BYTES = (TensorProto.INT8, TensorProto.UINT8)
_INTEGERS = (np.int8, np.uint8, np.int16, np.uint16)
_LEAST_SCALE = np.finfo(np.float32).tiny  # one over a smaller number is no float32


def scale_of(writer: Writer, node: Node, index: int) -> NDArray[Any]:
    """The scales of a map, at an input's index. Raises UserError where one is no number of a grid,
    or depends on the image."""
    scale = needed(writer, node, index, "scale")
    wrong = ~(np.isfinite(scale) & (scale >= _LEAST_SCALE))
    if wrong.any():
        raise node.error(
            f"a scale of {float(scale[wrong].flat[0]):g}; quantise the network anew, with scales "
            "above 0"
        )
    return scale


def zero_of(
    writer: Writer, node: Node, index: int, element: int, scale: NDArray[Any]
) -> NDArray[Any]:
    """The zero points that belong to scales, numbers of an element type; zeros where they are left
    out. Raises UserError where they are of another type or number."""
    zero = parameter(writer, node, index, "zero point")
    wanted = helper.tensor_dtype_to_np_dtype(element)
    if zero is None:
        return np.zeros(scale.shape, wanted)
    if zero.dtype != wanted or zero.size != scale.size:
        raise node.error(
            f"{zero.size} zero points in {zero.dtype} for {scale.size} scales of a map in "
            f"{np.dtype(wanted)}; the file is not valid ONNX"
        )
    return zero


def as_float(writer: Writer, x: str) -> str:
    """A tensor as float32, cast where it is of integers."""
    if writer.graph.types[x].element == TensorProto.FLOAT:
        return x
    return writer("Cast", x, to=TensorProto.FLOAT)


def shifted(writer: Writer, x: str, zero: NDArray[Any] | None) -> str:
    """Integers less their zero point, as whole float32 numbers."""
    x = as_float(writer, x)
    if zero is None or not zero.any():
        return x
    return writer("Sub", x, writer.constant(to_float32(zero)))


def end_quantised(writer: Writer, x: str, scale: NDArray[Any], zero: NDArray[Any]) -> None:
    """End a node with float32 `x` on the grid of scales and zero points that broadcast to it."""
    element = helper.np_dtype_to_tensor_dtype(zero.dtype)
    if element in IN_BYTES and scale.ndim == zero.ndim == 0:
        inputs = (writer.constant(to_float32(scale)), writer.constant(zero))
        writer.end("QuantizeLinear", x, *inputs)
        return
    scaled = writer("Div", x, writer.constant(to_float32(scale)))
    _end_rounded(writer, scaled, zero)


def _end_rounded(writer: Writer, x: str, zero: NDArray[Any]) -> None:
    """Round half to even, add the zero point, saturate, and make it integers of its type."""
    if zero.dtype not in _INTEGERS:
        raise writer.like.error(f"numbers of {zero.dtype} are not read; export the network with "
                                "int8 or uint8")  # fmt: skip
    limits = np.iinfo(zero.dtype)
    x = writer("Round", x)
    if zero.any():
        x = writer("Add", x, writer.constant(to_float32(zero)))
    x = writer("Clip", x, writer.constant(float(limits.min)), writer.constant(float(limits.max)))
    writer.end("Cast", x, to=helper.np_dtype_to_tensor_dtype(zero.dtype))


def dequantised(writer: Writer, x: str, scale: NDArray[Any], zero: NDArray[Any]) -> str:
    """Integers on the grid of scales and zero points that broadcast to them, in float32."""
    if writer.graph.types[x].element in IN_BYTES and scale.ndim == zero.ndim == 0:
        inputs = (writer.constant(to_float32(scale)), writer.constant(zero))
        return writer("DequantizeLinear", x, *inputs)
    return writer("Mul", shifted(writer, x, zero), writer.constant(to_float32(scale)))


def by_rule(
    writer: Writer, node: Node, op: str, inputs: list[str], attributes: dict[str, Any],
    opset: int = 20,
) -> str:  # fmt: skip
    """Write another operator in a node's place, as that operator's own rule does, of this opset;
    the name of what it makes."""
    from deploy.reading.opsets import activations, windows  # late: the table names this module

    made = writer.graph.fresh(node.outputs[0])
    inner = Node(op, inputs, [made], dict(attributes), node.name)
    rule = {**activations.RULES, **windows.RULES}.get(("", op))
    if rule is None:
        return writer.keep(inner)
    written = Writer(writer.graph, inner)
    rule(written, inner, opset)
    writer.nodes.extend(written.nodes)
    return made
