"""Pools over one, two or three axes of a map, and over the whole map."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from tvm import relax, te, tirx, topi

from deploy.graph.importer.node import (
    Constant,
    Expr,
    Node,
    Scalar,
    constant,
    dtype_of,
    reduction,
    shape_of,
    sizes,
)
from deploy.graph.importer.windows import Window, read_window

_SMALL = 32  # elements of a window


def max_pool(node: Node) -> Expr:
    """The largest of each window."""
    node.ignore("storage_order")  # of the indices
    if any(node.outputs[1:]):
        node.refuse("its second output, the indices, is not supported; use strided convolutions")
    window = _window(node)
    if _is_plain(node):
        return relax.op.nn.max_pool2d(node.tensor(0), *_sizes(node, window))
    return _pool(node, window, te.max, te.min_value(node.dtype()))


def average_pool(node: Node) -> Expr:
    """The mean of each window; of the padding only with count_include_pad."""
    window = _window(node)
    if window.kernel == node.shape()[2:] and not any(window.begin + window.end):
        node.ignore("count_include_pad")
        return global_average_pool(node)
    include_pad = bool(node.attribute("count_include_pad", 0)) and any(window.begin + window.end)
    # Behind the padding nothing counts, in TVM all that a window sees does.
    within = not include_pad or all(
        seen <= end for seen, end in zip(_behind(node, window), window.end, strict=True)
    )
    if _is_plain(node) and within and max(window.dilations) == 1:
        return relax.op.nn.avg_pool2d(
            node.tensor(0), *_sizes(node, window), count_include_pad=include_pad
        )
    count = _counts(node, window, include_pad)
    total = _sums(node, window)
    return relax.op.divide(total, constant(count, node.dtype()))


def lp_pool(node: Node) -> Expr:
    """(sum of |x|^p)^(1/p) of each window."""
    return _norm(node, lambda powers: _sums(node, _window(node), powers))


def global_average_pool(node: Node) -> Expr:
    """The mean of each channel."""
    return relax.op.mean(node.tensor(0), axis=_map_axes(node), keepdims=True)


def global_max_pool(node: Node) -> Expr:
    """The largest of each channel."""
    return relax.op.max(node.tensor(0), axis=_map_axes(node), keepdims=True)


def global_lp_pool(node: Node) -> Expr:
    """(sum of |x|^p)^(1/p) of each channel."""
    return _norm(node, lambda powers: relax.op.sum(powers, axis=_map_axes(node), keepdims=True))


def _map_axes(node: Node) -> list[int]:
    rank = len(node.shape())
    if rank < 3:
        node.refuse(f"an input of shape {node.shape()} has no map; the file is not valid ONNX")
    return list(range(2, rank))


def _norm(node: Node, total: Callable[[Expr], Expr]) -> Expr:
    p = node.attribute("p", 2)
    if not 1 <= p <= 8:
        node.refuse(f"p={p} is not supported (supported: 1 to 8)")
    x, dtype = node.tensor(0), node.dtype()
    if p == 1:
        return total(node.bind(relax.op.abs(x)))
    if p == 2:
        return relax.op.sqrt(total(node.bind(relax.op.multiply(x, x))))
    powers = node.bind(relax.op.abs(x))
    for _ in range(p - 1):  # TVM warns of a power of 3 and more
        powers = node.bind(relax.op.multiply(powers, relax.op.abs(x)))
    return relax.op.power(total(powers), constant(1 / p, dtype))


def _window(node: Node) -> Window:
    kernel = tuple(node.attribute("kernel_shape"))
    if not kernel or min(kernel) < 1:
        node.refuse(f"kernel_shape={list(kernel)}; the file is not valid ONNX")
    window = read_window(node, kernel, bool(node.attribute("ceil_mode", 0)))
    same = node.attribute("auto_pad", "NOTSET").startswith("SAME")
    if same and max(window.dilations) > 1:  # onnxruntime pads as if the window were not dilated
        node.refuse("auto_pad with dilations has no one meaning; give it pads")
    return window


def _is_plain(node: Node) -> bool:
    """Whether it is a pool of one image's maps, which TVM has an operator for."""
    return len(node.shape()) == 4 and node.shape()[0] == 1 and node.dtype() == "float32"


def _sizes(node: Node, window: Window) -> tuple[Sequence[int], ...]:
    """Window, strides, padding and dilations, with as much padding behind as windows see."""
    padding = [*window.begin, *_behind(node, window)]
    return window.kernel, window.strides, padding, window.dilations


def _behind(node: Node, window: Window) -> list[int]:
    """How far the last windows reach behind the map, which with ceil_mode may be behind the
    padding."""
    return [
        max((out - 1) * stride + span - size - begin, 0)
        for out, stride, span, size, begin in zip(
            window.output, window.strides, window.spans, node.shape()[2:], window.begin,
            strict=True,
        )
    ]  # fmt: skip


def _counts(node: Node, window: Window, include_pad: bool) -> Constant:
    """How many elements each mean is of, (1, 1, map), or one number where all are equal."""
    counts = np.ones((1, 1))
    for axis, size in enumerate(node.shape()[2:]):
        first = np.arange(window.output[axis]) * window.strides[axis] - window.begin[axis]
        places = first[:, None] + np.arange(window.kernel[axis]) * window.dilations[axis]
        if include_pad:
            inside = places < size + window.end[axis]
        else:
            inside = (places >= 0) & (places < size)
        counts = counts[..., None] * inside.sum(axis=1)
    return np.array(counts.flat[0]) if (counts == counts.flat[0]).all() else counts


def _sums(node: Node, window: Window, source: Expr | None = None) -> Expr:
    """The sum of each window; of a large one along one axis after the other, which takes fewer
    additions and rounds less."""
    if math.prod(window.kernel) <= _SMALL:
        return _pool(node, window, te.sum, None, source)
    result = node.tensor(0) if source is None else source
    for axis in reversed(range(len(window.kernel))):
        along = window.along(axis, shape_of(result)[2:])
        result = _pool(node, along, te.sum, None, result)
    return result


def _pool(
    node: Node,
    window: Window,
    reduce: Callable[..., Scalar],
    padding: Scalar,
    source: Expr | None = None,
) -> Expr:
    """What `reduce` makes of each window of the first input, or of `source` in its place."""
    x = node.tensor(0) if source is None else source
    batch, channels, *_ = shape_of(x)
    behind = _behind(node, window)

    def nest(tensor: te.Tensor) -> te.Tensor:
        if any(window.begin) or any(behind):
            value = tirx.const(0, dtype_of(x)) if padding is None else padding
            tensor = topi.nn.pad(tensor, [0, 0, *window.begin], [0, 0, *behind], value, "padded")
        axes = [reduction(size, f"k{axis}") for axis, size in enumerate(window.kernel)]

        def element(n: Scalar, c: Scalar, *place: Scalar) -> Scalar:
            there = [
                at * stride + k * dilation
                for at, stride, k, dilation in zip(
                    place, window.strides, axes, window.dilations, strict=True
                )
            ]
            return reduce(tensor(n, c, *there), axis=axes)

        return te.compute(sizes((batch, channels, *window.output)), element, name="pool")

    return node.loops(nest, x)
