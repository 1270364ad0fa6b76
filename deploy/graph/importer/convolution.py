"""Convolutions over one, two or three axes."""

import numpy as np
from tvm import relax, te, tirx, topi

from deploy.graph.importer.node import Constant, Expr, Node, Scalar, constant, sizes
from deploy.graph.importer.windows import read_sides, read_window

_CONVOLUTIONS = {1: relax.op.nn.conv1d, 2: relax.op.nn.conv2d, 3: relax.op.nn.conv3d}


def conv(node: Node) -> Expr:
    """Weight (O, I / groups, window), bias (O,)."""
    shape, weight = node.shape(0), node.shape(1)
    groups = node.attribute("group", 1)
    _check_kernel(node, weight[2:])
    window = read_window(node, weight[2:])
    if shape[1] != weight[1] * groups or weight[0] % groups:
        node.refuse(
            f"a weight of shape {weight} in {groups} groups on {shape[1]} channels; "
            "the file is not valid ONNX"
        )
    result = _CONVOLUTIONS[len(window.kernel)](
        node.tensor(0), node.tensor(1), list(window.strides), [*window.begin, *window.end],
        list(window.dilations), groups,
    )  # fmt: skip
    return _with_bias(node, result, weight[0])


def conv_transpose(node: Node) -> Expr:
    """Weight (I, O / groups, window), bias (O,).

    Written as what it is: a convolution with the mirrored window over the input with zeros between
    its elements.
    """
    weight = node.parameter(1, "weight")
    rank, groups = weight.ndim - 2, node.attribute("group", 1)
    _check_kernel(node, weight.shape[2:])
    sides = node.shape()[2:]
    if (
        not rank
        or len(sides) != rank
        or node.shape()[1] != weight.shape[0]
        or weight.shape[0] % groups
    ):
        node.refuse(
            f"a weight of shape {weight.shape} in {groups} groups on an input of shape "
            f"{node.shape()}; the file is not valid ONNX"
        )
    strides, dilations = read_sides(node, "strides", rank), read_sides(node, "dilations", rank)
    spans = [d * (k - 1) + 1 for k, d in zip(weight.shape[2:], dilations, strict=True)]
    begin, end = _transposed_pads(node, sides, strides, spans)
    x = node.tensor(0)
    if max(strides) > 1:
        x = _with_zeros_between(node, x, strides)
    cut = [max(-pad, 0) for pad in begin], [max(-pad, 0) for pad in end]
    if any(cut[0]) or any(cut[1]):
        lengths = [(size - 1) * s + 1 for size, s in zip(sides, strides, strict=True)]
        x = relax.op.strided_slice(
            x, list(range(2, 2 + rank)), cut[0],
            [length - behind for length, behind in zip(lengths, cut[1], strict=True)],
        )  # fmt: skip
    padding = [max(pad, 0) for pad in (*begin, *end)]
    result = _CONVOLUTIONS[rank](
        x, constant(_mirrored(weight, groups)), [1] * rank, padding, list(dilations), groups
    )
    return _with_bias(node, result, weight.shape[1] * groups)


def _check_kernel(node: Node, kernel: tuple[int, ...]) -> None:
    if len(kernel) not in _CONVOLUTIONS:
        node.refuse(f"a convolution over {len(kernel)} axes is not supported (supported: 1 to 3)")
    said = node.attribute("kernel_shape", None)
    if said is not None and tuple(said) != kernel:
        node.refuse(f"kernel_shape={list(said)} with a window {kernel}; the file is not valid ONNX")


def _with_bias(node: Node, result: Expr, channels: int) -> Expr:
    if not node.has(2):
        return result
    shape = (1, channels, *[1] * (len(node.shape()) - 2))
    if node.shape(2) != (channels,):
        node.refuse(f"a bias of shape {node.shape(2)} for {channels} channels; not valid ONNX")
    if node.is_constant(2):
        bias = constant(node.parameter(2, "bias").reshape(shape))
    else:
        bias = relax.op.reshape(node.tensor(2), shape)
    return relax.op.add(result, bias)


def _transposed_pads(
    node: Node, sides: tuple[int, ...], strides: tuple[int, ...], spans: list[int]
) -> tuple[list[int], list[int]]:
    """Padding, or cutting where negative, of the input with zeros between its elements."""
    rank = len(sides)
    auto_pad = node.choice("auto_pad", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")
    more = node.attribute("output_padding", None) or [0] * rank
    pads = node.attribute("pads", None) or [0] * (2 * rank)
    wanted = node.attribute("output_shape", None)
    if wanted is not None and len(wanted) == rank + 2:
        wanted = wanted[2:]  # with the batch and the channels, as older files have it
    if len(pads) != 2 * rank or min(pads) < 0 or len(more) != rank or min(more) < 0:
        node.refuse(f"pads={pads} with output_padding={more} is not supported")
    if auto_pad == "VALID":
        pads = [0] * (2 * rank)
    if wanted is None and auto_pad.startswith("SAME"):
        wanted = [size * stride for size, stride in zip(sides, strides, strict=True)]
    begin, end = [], []
    for axis, (size, stride, span) in enumerate(zip(sides, strides, spans, strict=True)):
        before, behind = pads[axis], pads[axis + rank]
        if wanted is not None:
            total = stride * (size - 1) + more[axis] + span - wanted[axis]
            small, large = total // 2, total - total // 2
            before, behind = (small, large) if auto_pad == "SAME_UPPER" else (large, small)
            if total < 0:
                if auto_pad != "NOTSET":  # onnxruntime then gives a smaller output
                    node.refuse("auto_pad of a window below the stride; give output_padding")
                before, behind = 0, total  # no element reaches what lies behind
        begin.append(span - 1 - before)
        end.append(span - 1 - behind + more[axis])
        if stride * (size - 1) + 1 + begin[-1] + end[-1] < span:
            node.refuse("its output is empty; the file is not valid ONNX")
    return begin, end


def _with_zeros_between(node: Node, x: Expr, strides: tuple[int, ...]) -> Expr:
    """Strides - 1 zeros between the elements of each axis of the map."""
    batch, channels, *sides = node.shape()
    lengths = [(size - 1) * stride + 1 for size, stride in zip(sides, strides, strict=True)]

    def nest(tensor: te.Tensor) -> te.Tensor:
        def element(n: Scalar, c: Scalar, *place: Scalar) -> Scalar:
            there = [at % s == 0 for at, s in zip(place, strides, strict=True) if s > 1]
            value = tensor(n, c, *(at // s for at, s in zip(place, strides, strict=True)))
            return tirx.if_then_else(tirx.all(*there), value, tirx.const(0, tensor.dtype))

        shape = sizes((batch, channels, *lengths))
        return te.compute(shape, element, name="spaced", tag=topi.tag.INJECTIVE)

    return node.loops(nest, x, name="zeros_between")


def _mirrored(weight: Constant, groups: int) -> Constant:
    """(I, O / groups, window) as the weight (O, I / groups, window) of a convolution."""
    cin, per_group, *kernel = weight.shape
    grouped = weight.reshape(groups, cin // groups, per_group, *kernel).swapaxes(1, 2)
    straight = grouped.reshape(groups * per_group, cin // groups, *kernel)
    return np.flip(straight, tuple(range(2, straight.ndim)))
