"""Quantised numbers, with exactly ONNX's rounding: half to even, then saturated."""

import numpy as np
from onnx import TensorProto, helper
from tvm import relax, tirx

from deploy.graph.importer.node import Constant, Expr, Node, Scalar, constant
from deploy.graph.stored import FUNCTION

_QUANTISED = ("uint8", "int8", "uint16", "int16")


def quantize_linear(node: Node) -> Expr:
    """saturate(round(x / scale) + zero point)."""
    node.ignore("saturate")  # of 8-bit floating-point numbers
    scale, zero = _parameters(node, "uint8")
    if zero.dtype.name not in _QUANTISED or not node.is_float():
        node.refuse(
            f"from {node.dtype()} to {zero.dtype.name} is not supported "
            f"(supported: float32 to {', '.join(_QUANTISED)})"
        )
    info = np.iinfo(zero.dtype)

    def element(x: Scalar, s: Scalar, z: Scalar) -> Scalar:
        # In floating-point numbers: what is far out of range does not fit an integer.
        rounded = tirx.nearbyint(x / s)
        low, high = (tirx.const(float(limit), x.ty.dtype) for limit in (info.min, info.max))
        shifted = rounded + z.astype(x.ty.dtype)
        return tirx.max(tirx.min(shifted, high), low).astype("int32").astype(zero.dtype.name)

    return node.elementwise(element, node.tensor(0), constant(scale), constant(zero))


def dequantize_linear(node: Node) -> Expr:
    """(x - zero point) * scale."""
    node.ignore("saturate")
    scale, zero = _parameters(node, node.dtype())
    if node.dtype() not in (*_QUANTISED, "int32"):
        node.refuse(f"from {node.dtype()} is not supported (supported: {', '.join(_QUANTISED)})")
    wide = relax.op.subtract(
        relax.op.astype(node.tensor(0), "int32"), constant(zero.astype(np.int32))
    )
    return relax.op.multiply(relax.op.astype(wide, scale.dtype.name), constant(scale))


def stored(node: Node) -> Expr:
    """A map that lies in memory on a grid of 8 bits (`deploy.graph.stored`)."""
    x, *grid = node.tensor(0), node.parameter(1, "scale"), node.parameter(2, "zero point")
    arguments = [x, *(constant(np.asarray(value)) for value in grid)]
    return relax.op.call_pure_packed(FUNCTION, *arguments, ty_args=x.ty)


def _parameters(node: Node, dtype: str) -> tuple[Constant, Constant]:
    """Scale and zero point, in shapes that are broadcast to the first input's."""
    axis = node.attribute("axis", 1)
    if node.attribute("block_size", 0):
        node.refuse("block_size is not supported; quantise per tensor or per axis")
    scale = node.parameter(1, "scale")
    said = node.attribute("output_dtype", TensorProto.UNDEFINED)
    if said:
        dtype = helper.tensor_dtype_to_np_dtype(said).name
    zero = node.optional(2, "zero point")
    if zero is None:
        zero = np.zeros(scale.shape, dtype)
    if scale.dtype not in (np.float32, np.float64) or scale.shape != zero.shape:
        node.refuse(f"a scale {scale.dtype.name} {scale.shape}; convert the network to float32")
    if scale.size == 1:
        return scale.reshape(()), zero.reshape(())
    axis, shape = node.checked_axis(axis), [1] * len(node.shape())
    shape[axis] = node.shape()[axis]
    if scale.shape != (shape[axis],):
        node.refuse(f"a scale of shape {scale.shape} for axis {axis}; the file is not valid ONNX")
    return scale.reshape(shape), zero.reshape(shape)
