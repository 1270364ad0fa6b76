"""Convolutions and pools: what they pad is written in numbers."""

from collections.abc import Sequence

from deploy.reading.graph import Node, TensorType
from deploy.reading.infer import shape_text
from deploy.reading.opsets.rule import Rule, integers, one_output, parameter
from deploy.reading.writer import Writer


def _window(writer: Writer, node: Node, opset: int) -> None:
    """A convolution or a pool; `auto_pad` pads to an output of a stride-th of the input."""
    spatial = writer.graph.shape(node.inputs[0])[2:]
    auto = _take_auto_pad(node)
    if auto == "VALID":
        node.attributes["pads"] = [0] * (2 * len(spatial))
    elif auto:
        kernel, strides, dilations = _sizes(writer, node, len(spatial))
        totals = [
            max((-(-side // s) - 1) * s + (k - 1) * d + 1 - side, 0)
            for side, k, s, d in zip(spatial, kernel, strides, dilations, strict=True)
        ]
        node.attributes["pads"] = _halves(totals, more_at_end=auto == "SAME_UPPER")
    writer.keep(node)


def _conv(writer: Writer, node: Node, opset: int) -> None:
    _check_weights(writer, node, inputs_axis=1)
    _window(writer, node, opset)


def _check_weights(writer: Writer, node: Node, *, inputs_axis: int) -> None:
    """Weights (M, C / groups, ...), of a transposed convolution (C, M / groups, ...), bias (M)."""
    shape, weight = writer.graph.shape(node.inputs[0]), writer.graph.shape(node.inputs[1])
    groups = node.get("group", 1)
    if len(shape) < 3 or len(weight) != len(shape) or groups < 1:
        raise node.error(f"weights {shape_text(weight)} do not fit its input {shape_text(shape)}")
    inputs, outputs = weight[1] * groups, weight[0]
    if inputs_axis == 0:
        inputs, outputs = weight[0], weight[1] * groups
    if inputs != shape[1] or outputs % groups or inputs % groups:
        raise node.error(
            f"its weights {shape_text(weight)} in {groups} groups take {inputs} channels, its "
            f"input {shape_text(shape)} has {shape[1]}"
        )
    if node.input(2) and writer.graph.shape(node.inputs[2]) != (outputs,):
        bias = shape_text(writer.graph.shape(node.inputs[2]))
        raise node.error(f"its bias {bias} does not fit its {outputs} outputs")


def _transposed(writer: Writer, node: Node, opset: int) -> None:
    """A transposed convolution; `output_shape` says what it gives instead of what it pads."""
    _check_weights(writer, node, inputs_axis=0)
    spatial = writer.graph.shape(node.inputs[0])[2:]
    auto = _take_auto_pad(node)
    shape = node.attributes.pop("output_shape", None)
    if shape is None and auto not in ("SAME_UPPER", "SAME_LOWER"):
        if auto == "VALID":
            node.attributes["pads"] = [0] * (2 * len(spatial))
        writer.keep(node)
        return
    kernel, strides, dilations = _sizes(writer, node, len(spatial))
    extra = node.get("output_padding") or [0] * len(spatial)
    wanted = shape or [side * s for side, s in zip(spatial, strides, strict=True)]
    natural = [
        (side - 1) * s + e + (k - 1) * d + 1
        for side, k, s, d, e in zip(spatial, kernel, strides, dilations, extra, strict=True)
    ]
    totals = [n - w for n, w in zip(natural, wanted[-len(spatial) :], strict=True)]
    if min(totals) < 0:  # what is missing stands at the end
        extra = [e + max(-total, 0) for e, total in zip(extra, totals, strict=True)]
        node.attributes["output_padding"] = extra
        totals = [max(total, 0) for total in totals]
    if any(e >= max(s, d) for e, s, d in zip(extra, strides, dilations, strict=True)):
        raise node.error("its output_shape is larger than what it computes; export it with pads "
                         "and output_padding")  # fmt: skip
    node.attributes["pads"] = _halves(totals, more_at_end=auto == "SAME_UPPER")
    writer.keep(node)


def _max_pool(writer: Writer, node: Node, opset: int) -> None:
    if not node.get("storage_order", 0):
        node.attributes.pop("storage_order", None)
    if not any(node.outputs[1:]):
        one_output(node)
    _window(writer, node, opset)


def _max_unpool(writer: Writer, node: Node, opset: int) -> None:
    """`steps/unpool.py` writes it out; ONNX's inference does not read its `output_shape`."""
    shape = parameter(writer, node, 2, "output_shape")
    if shape is None or not shape.size:
        writer.keep(node)
        return
    element = writer.graph.types[node.inputs[0]].element
    writer.graph.types[node.outputs[0]] = TensorType(element, tuple(integers(shape)))
    writer.nodes.append(node)


def _take_auto_pad(node: Node) -> str:
    auto = node.get("auto_pad", "NOTSET")
    node.attributes.pop("auto_pad", None)
    return "" if auto == "NOTSET" else str(auto)


def _sizes(writer: Writer, node: Node, rank: int) -> tuple[Sequence[int], ...]:
    """Kernel, strides and dilations of each axis."""
    kernel = node.get("kernel_shape") or writer.graph.shape(node.inputs[1])[2:]
    ones = [1] * rank
    found = (kernel, node.get("strides") or ones, node.get("dilations") or ones)
    if any(len(sizes) != rank for sizes in found):
        raise node.error("its kernel, strides and dilations do not fit its input's axes")
    return found


def _halves(totals: list[int], *, more_at_end: bool) -> list[int]:
    small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
    return [*small, *large] if more_at_end else [*large, *small]


RULES: dict[tuple[str, str], Rule] = {
    ("", "Conv"): _conv,
    ("", "AveragePool"): _window,
    ("", "LpPool"): _window,
    ("", "MaxPool"): _max_pool,
    ("", "MaxUnpool"): _max_unpool,
    ("", "ConvTranspose"): _transposed,
}
