"""Activations: bounds as inputs, softmax over one axis, what opset 20 lacks in what it has."""

from math import prod

import numpy as np

from deploy.reading.float32 import to_float32
from deploy.reading.graph import Node
from deploy.reading.opsets.rule import Rule, one_output, parameter
from deploy.reading.writer import Writer

_FLOAT_MAX = float(np.finfo(np.float32).max)


def _clip(writer: Writer, node: Node, opset: int) -> None:
    if opset < 11:
        low, high = node.attributes.pop("min", -_FLOAT_MAX), node.attributes.pop("max", _FLOAT_MAX)
        bounds = [None if abs(v) >= _FLOAT_MAX else np.float32(v) for v in (low, high)]
        names = ["" if v is None else writer.constant(np.asarray(v)) for v in bounds]
    else:
        values = [parameter(writer, node, index, "bound") for index in (1, 2)]
        names = ["" if v is None else node.inputs[i + 1] for i, v in enumerate(values)]
    if any(names):
        writer.end("Clip", node.inputs[0], *names)
    else:
        writer.end("Identity", node.inputs[0])


def _softmax(writer: Writer, node: Node, opset: int) -> None:
    """Before opset 13 it runs over all axes from its own on, as if they were one."""
    if opset >= 13:
        writer.keep(node)
        return
    source, shape = node.inputs[0], writer.graph.shape(node.inputs[0])
    axis = node.attributes.pop("axis", 1)
    axis += len(shape) if axis < 0 else 0
    if axis >= len(shape) or prod(shape[axis + 1 :]) == 1 < len(shape) - axis:
        node.attributes["axis"] = min(axis, len(shape) - 1)
        writer.keep(node)
    elif axis == len(shape) - 1:
        node.attributes["axis"] = axis
        writer.keep(node)
    else:
        rows = writer.constant([prod(shape[:axis]), prod(shape[axis:])])
        flat = writer(node.op, writer("Reshape", source, rows), axis=1)
        writer.end("Reshape", flat, writer.constant(np.array(shape, np.int64)))


def _swish(writer: Writer, node: Node, opset: int) -> None:
    x, alpha = node.inputs[0], node.get("alpha", 1.0)
    scaled = x if alpha == 1 else writer("Mul", x, writer.constant(float(alpha)))
    writer.end("Mul", x, writer("Sigmoid", scaled))


def _quick_gelu(writer: Writer, node: Node, opset: int) -> None:
    node.attributes.setdefault("alpha", 1.702)
    _swish(writer, node, opset)


def _gelu(writer: Writer, node: Node, opset: int) -> None:
    """onnxruntime's own, exact and by tanh, the latter with a bias."""
    x = node.inputs[0]
    if node.op == "FastGelu" and node.input(1):
        x = writer("Add", x, node.inputs[1])
    writer.end("Gelu", x, approximate="tanh" if node.op == "FastGelu" else "none")


def _fused_conv(writer: Writer, node: Node, opset: int) -> None:
    """onnxruntime's convolution with what follows it: a map to add, an activation."""
    attributes = dict(node.attributes)
    activation = node.get("activation", "")
    parameters = attributes.pop("activation_params", [])
    attributes.pop("activation", None)
    if activation not in ("", *_FUSED):
        raise node.error("its activation is not known here; save the network without onnxruntime's "
                         "optimisations")  # fmt: skip
    x = writer("Conv", *node.inputs[:3], **attributes)
    if node.input(3):
        x = writer("Add", x, node.inputs[3])
    names = _FUSED.get(activation, ())
    if activation == "Clip":
        writer.end("Clip", x, *(writer.constant(float(v)) for v in parameters))
    else:
        given = dict(zip(names, parameters, strict=False))
        writer.end(activation or "Identity", x, **given)


_FUSED = {"Relu": (), "Sigmoid": (), "Tanh": (), "LeakyRelu": ("alpha",), "Clip": (),
          "HardSigmoid": ("alpha", "beta")}  # fmt: skip


def _prelu(writer: Writer, node: Node, opset: int) -> None:
    """Its slopes get an axis for each of its input's: (C, 1, 1) is broadcast to (1, C, 1, 1)."""
    slopes = parameter(writer, node, 1, "slopes")
    rank = writer.graph.rank(node.inputs[0])
    if slopes is not None and slopes.ndim < rank:
        shape = (1,) * (rank - slopes.ndim) + slopes.shape
        node.inputs[1] = writer.constant(to_float32(slopes).reshape(shape))
    one_output(node)
    writer.keep(node)


RULES: dict[tuple[str, str], Rule] = {
    ("", "Clip"): _clip,
    ("", "Softmax"): _softmax,
    ("", "LogSoftmax"): _softmax,
    ("", "Hardmax"): _softmax,
    ("", "Swish"): _swish,
    ("", "PRelu"): _prelu,
    ("com.microsoft", "Gelu"): _gelu,
    ("com.microsoft", "FastGelu"): _gelu,
    ("com.microsoft", "QuickGelu"): _quick_gelu,
    ("com.microsoft", "FusedConv"): _fused_conv,
}
