"""Normalisations, all in two passes: the mean first, then the squares of what is left."""

import math

import numpy as np
from tvm import relax, te, tirx

from deploy.graph.importer.node import (
    Expr,
    Node,
    Result,
    Scalar,
    constant,
    reduction,
    shape_of,
    sizes,
)


def softmax(node: Node) -> Expr:
    """exp(x) / sum(exp(x)) over one axis."""
    return relax.op.nn.softmax(node.tensor(0), node.axis("axis", -1))


def log_softmax(node: Node) -> Expr:
    """x - log(sum(exp(x))) over one axis."""
    axis, x = node.axis("axis", -1), node.tensor(0)
    shifted = node.bind(relax.op.subtract(x, relax.op.max(x, axis=axis, keepdims=True)))
    total = relax.op.sum(relax.op.exp(shifted), axis=axis, keepdims=True)
    return relax.op.subtract(shifted, relax.op.log(total))


def hardmax(node: Node) -> Expr:
    """1 at the first largest element of an axis, else 0."""
    axis, x = node.axis("axis", -1), node.tensor(0)
    shape = [1] * len(node.shape())
    shape[axis] = node.shape()[axis]
    places = constant(np.arange(shape[axis]).reshape(shape), "int64")
    first = relax.op.argmax(x, axis=axis, keepdims=True)
    return relax.op.astype(relax.op.equal(first, places), node.dtype())


def batch_normalization(node: Node) -> Expr:
    """(x - mean) / sqrt(var + epsilon) * scale + bias, with the running mean and variance."""
    epsilon = node.attribute("epsilon", 1e-5)
    node.ignore("momentum")
    if node.attribute("training_mode", 0) or any(node.outputs[1:]):
        node.refuse("it is in training mode; export the network with model.eval()")
    names = ("scale", "bias", "mean", "variance")
    scale, bias, average, variance = (
        node.parameter(i, name).astype(np.float64) for i, name in enumerate(names, 1)
    )
    channels = node.shape()[1] if len(node.shape()) > 1 else 1
    if any(value.shape != (channels,) for value in (scale, bias, average, variance)):
        node.refuse(f"its parameters are not one for each of {channels} channels; not valid ONNX")
    factor = scale / np.sqrt(variance + epsilon)
    shift = bias - average * factor
    shape = (channels, *[1] * max(len(node.shape()) - 2, 0))
    factor, shift = (constant(value.reshape(shape), node.dtype()) for value in (factor, shift))
    return relax.op.add(relax.op.multiply(node.tensor(0), factor), shift)


def layer_normalization(node: Node) -> Result:
    """Over the last axes, from `axis` on; then the mean and 1 / deviation, where they are asked."""
    axis, epsilon = node.axis("axis", -1), node.attribute("epsilon", 1e-5)
    if node.attribute("stash_type", 1) != 1:
        node.refuse("stash_type other than 1 (float32) is not supported")
    axes = list(range(axis, len(node.shape())))
    normal, average, inverse = _normalised(node, node.tensor(0), axes, epsilon)
    result = relax.op.multiply(normal, node.tensor(1))
    if node.has(2):
        result = relax.op.add(result, node.tensor(2))
    return [result, average, inverse][: len(node.outputs)]


def instance_normalization(node: Node) -> Expr:
    """Each channel of each image over its map."""
    epsilon = node.attribute("epsilon", 1e-5)
    shape, rank = node.shape(), len(node.shape())
    of = _map_behind(node)
    if of is None:
        normal, *_ = _normalised(node, node.tensor(0), list(range(2, rank)), epsilon)
    else:
        normal = relax.op.reshape(_normalised_map(node, of, shape[1], epsilon), shape)
    return _per_channel(node, normal, rank)


def group_normalization(node: Node) -> Expr:
    """Groups of channels together over their maps; scale and bias one for each group, as in opset
    18, or for each channel, as in opset 21."""
    epsilon, groups = node.attribute("epsilon", 1e-5), node.attribute("num_groups")
    node.ignore("stash_type")  # all is computed in the input's type
    shape = node.shape()
    per_group = node.shape(1) == (groups,)
    if shape[1] % groups or not (per_group or node.shape(1) == (shape[1],)):
        node.refuse(
            f"{groups} groups of {shape[1]} channels with a scale of shape {node.shape(1)}; "
            "the file is not valid ONNX"
        )
    if _is_map(shape):
        normal = _normalised_map(node, node.tensor(0), groups, epsilon)
        return _per_channel(node, normal, 4, shape[1] // groups if per_group else 1)
    grouped = (shape[0], groups, shape[1] // groups, *shape[2:])
    x = node.bind(relax.op.reshape(node.tensor(0), grouped))
    normal, *_ = _normalised(node, x, list(range(2, len(grouped))), epsilon)
    if per_group:
        return relax.op.reshape(_per_channel(node, normal, len(grouped)), shape)
    return _per_channel(node, relax.op.reshape(normal, shape), len(shape))


def mean_variance_normalization(node: Node) -> Expr:
    """(x - mean) / (deviation + 1e-9) over the axes."""
    axes = [node.checked_axis(axis) for axis in node.attribute("axes", [0, 2, 3])]
    x, dtype = node.tensor(0), node.dtype()
    centred = node.bind(relax.op.subtract(x, relax.op.mean(x, axis=axes, keepdims=True)))
    variance = relax.op.mean(relax.op.multiply(centred, centred), axis=axes, keepdims=True)
    deviation = relax.op.add(relax.op.sqrt(variance), constant(1e-9, dtype))
    return relax.op.divide(centred, deviation)


def lp_normalization(node: Node) -> Expr:
    """x / (sum of |x|^p)^(1/p) over one axis; 0 where that is 0."""
    axis, p = node.axis("axis", -1), node.attribute("p", 2)
    if p not in (1, 2):
        node.refuse(f"p={p} is not supported (supported: 1 and 2)")
    x = node.tensor(0)
    powers = relax.op.abs(x) if p == 1 else relax.op.multiply(x, x)
    total = relax.op.sum(powers, axis=axis, keepdims=True)
    norm = total if p == 1 else relax.op.sqrt(total)
    return node.elementwise(
        lambda a, b: tirx.Select(b == 0, tirx.const(0, a.ty.dtype), a / b), x, norm
    )


def lrn(node: Node) -> Expr:
    """x / (bias + alpha / size * sum of squares of the channels around)^beta."""
    size = node.attribute("size")
    alpha, beta = node.attribute("alpha", 1e-4), node.attribute("beta", 0.75)
    bias, x, shape = node.attribute("bias", 1.0), node.tensor(0), node.shape()
    first = (size - 1) // 2

    def squares(tensor: te.Tensor) -> te.Tensor:
        k = reduction(size)

        def element(n: Scalar, c: Scalar, *place: Scalar) -> Scalar:
            at = c + k - first
            inside = tirx.all(at >= 0, at < shape[1])
            value = tensor(n, tirx.max(tirx.min(at, shape[1] - 1), 0), *place)
            return te.sum(tirx.Select(inside, value * value, tirx.const(0, tensor.dtype)), axis=[k])

        return te.compute(sizes(shape), element, name="squares")

    total = node.loops(squares, x)
    base = relax.op.add(
        relax.op.multiply(total, constant(alpha / size, node.dtype())), constant(bias, node.dtype())
    )
    return relax.op.divide(x, relax.op.power(base, constant(beta, node.dtype())))


def _normalised(node: Node, x: Expr, axes: list[int], epsilon: float) -> tuple[Expr, Expr, Expr]:
    """x with mean 0 and deviation 1 over the axes, its mean, and 1 / its deviation."""
    average = node.bind(relax.op.mean(x, axis=axes, keepdims=True))
    centred = node.bind(relax.op.subtract(x, average))
    variance = relax.op.mean(relax.op.multiply(centred, centred), axis=axes, keepdims=True)
    deviation = relax.op.sqrt(relax.op.add(variance, constant(epsilon, node.dtype())))
    inverse = node.bind(relax.op.divide(constant(1, node.dtype()), deviation))
    return relax.op.multiply(centred, inverse), average, inverse


def _is_map(shape: tuple[int, ...]) -> bool:
    return len(shape) == 4 and shape[0] == 1


def _map_behind(node: Node) -> Expr | None:
    """The map (1, C, H, W) that the input is, or of which it has all, in groups of channels: as
    exporters write a group norm."""
    x, shape = node.tensor(0), node.shape()
    if _is_map(shape):
        return x
    made = node.builder.lookup_binding(x) if isinstance(x, relax.Var) else None
    if not isinstance(made, relax.Call) or getattr(made.op, "name", "") != "relax.reshape":
        return None
    of = made.args[0]
    channels = shape_of(of)[1] if _is_map(shape_of(of)) else 0
    return of if channels and shape[0] == 1 and channels % shape[1] == 0 else None


def _normalised_map(node: Node, x: Expr, groups: int, epsilon: float) -> Expr:
    """A map (1, C, H, W) with mean 0 and deviation 1 over each group of channels, by numbers for
    each channel: nothing of the map's size takes another shape."""
    channels, dtype = shape_of(x)[1], str(x.ty.dtype)

    def over_groups(value: Expr) -> Expr:
        """The mean over the map and the group, (1, C, 1, 1)."""
        each = node.bind(relax.op.mean(value, axis=[2, 3], keepdims=True))
        if groups == channels:
            return each
        grouped = relax.op.reshape(each, (groups, channels // groups))
        average = node.bind(relax.op.mean(grouped, axis=[1], keepdims=True))
        whole = relax.op.broadcast_to(average, (groups, channels // groups))
        return node.bind(relax.op.reshape(whole, (1, channels, 1, 1)))

    centred = node.bind(relax.op.subtract(x, over_groups(x)))
    variance = over_groups(node.bind(relax.op.multiply(centred, centred)))
    deviation = relax.op.sqrt(relax.op.add(variance, constant(epsilon, dtype)))
    inverse = node.bind(relax.op.divide(constant(1, dtype), deviation))
    return node.bind(relax.op.multiply(centred, inverse))


def _per_channel(node: Node, normal: Expr, rank: int, each: int = 1) -> Expr:
    """Times the second input plus the third, along axis 1, of which each number is for `each`."""
    shape = (math.prod(node.shape(1)) * each, *[1] * (rank - 2))
    scale, bias = (
        constant(np.repeat(node.parameter(i, what), each).reshape(shape))
        for i, what in ((1, "scale"), (2, "bias"))
    )
    return relax.op.add(relax.op.multiply(normal, scale), bias)
