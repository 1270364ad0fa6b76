"""Operators that choose elements, and triangles and sums along an axis."""

from collections.abc import Sequence

import numpy as np
from tvm import relax, te, tirx

from deploy.graph.importer.node import (
    Constant,
    Expr,
    Node,
    Scalar,
    Value,
    constant,
    index,
    reduction,
    sizes,
)


def slice_(node: Node) -> Value:
    """From starts to ends by steps, on the axes that are named."""
    starts, ends = node.integers(1, "starts"), node.integers(2, "ends")
    axes = node.integers(3, "axes") if node.has(3) else list(range(len(starts)))
    steps = node.integers(4, "steps") if node.has(4) else [1] * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps) or 0 in steps:
        node.refuse(f"starts {starts}, ends {ends}, axes {axes}, steps {steps}: not valid ONNX")
    old = node.shape()
    chosen = [range(size) for size in old]
    for axis, *cut in zip(
        (node.checked_axis(axis) for axis in axes), starts, ends, steps, strict=True
    ):
        chosen[axis] = range(old[axis])[slice(*cut)]
    if node.is_constant(0):
        return node.parameter(0, "data")[np.ix_(*chosen)] if chosen else node.value(0)
    if not all(chosen):
        node.refuse(f"the slice of a tensor of shape {old} is empty, which is not supported")
    cut_axes = [
        axis for axis, places in enumerate(chosen) if len(places) < old[axis] or places.step < 0
    ]
    if not cut_axes:
        return node.tensor(0)
    if all(chosen[axis].step > 0 for axis in cut_axes):
        firsts, lasts, strides = (
            [value(chosen[axis]) for axis in cut_axes] for value in (_first, _behind, _step)
        )
        return relax.op.strided_slice(node.tensor(0), cut_axes, firsts, lasts, strides)
    return node.compute(
        [len(places) for places in chosen],
        lambda tensors, *place: tensors[0](
            *(places.start + at * places.step for at, places in zip(place, chosen, strict=True))
        ),
        node.tensor(0),
    )


def _first(places: range) -> int:
    return places.start


def _behind(places: range) -> int:
    return places[-1] + 1


def _step(places: range) -> int:
    return places.step


def gather(node: Node) -> Value:
    """The entries of one axis that the indices name."""
    axis, old, places = node.axis("axis", 0), node.shape(), node.shape(1)
    if node.is_constant(0) and node.is_constant(1):
        try:
            return np.take(node.parameter(0, "data"), node.parameter(1, "indices"), axis)
        except IndexError:
            node.refuse("an index is out of range; the file is not valid ONNX")
    rank = len(places)
    shape = (*old[:axis], *places, *old[axis + 1 :])
    if node.is_constant(1) and node.parameter(1, "indices").size == 1:
        # As a slice, so that passes see which part of the tensor it is.
        at = int(node.parameter(1, "indices").item())
        if -old[axis] <= at < old[axis]:
            at %= old[axis]
            cut = relax.op.strided_slice(node.tensor(0), [axis], [at], [at + 1])
            return relax.op.reshape(cut, shape)

    def element(tensors: Sequence[Scalar], *place: Scalar) -> Scalar:
        at = index(tensors[1], *place[axis : axis + rank])
        return tensors[0](*place[:axis], _inside(at, old[axis]), *place[axis + rank :])

    return node.compute(shape, element, node.tensor(0), _indices(node, 1, old[axis]))


def gather_elements(node: Node) -> Expr:
    """Each index names an element on one axis, at its own place on the others."""
    axis, old = node.axis("axis", 0), node.shape()

    def element(tensors: Sequence[Scalar], *place: Scalar) -> Scalar:
        at = _inside(index(tensors[1], *place), old[axis])
        return tensors[0](*place[:axis], at, *place[axis + 1 :])

    return node.compute(node.shape(1), element, node.tensor(0), _indices(node, 1, old[axis]))


def gather_nd(node: Node) -> Expr:
    """The last axis of the indices names the first axes of the data behind the batch."""
    batch, old, places = node.attribute("batch_dims", 0), node.shape(), node.shape(1)
    named = places[-1] if places else 0
    if not places or batch + named > len(old):
        node.refuse(f"indices of shape {places} into {old}; the file is not valid ONNX")
    rank = len(places) - 1

    def element(tensors: Sequence[Scalar], *place: Scalar) -> Scalar:
        first = place[:rank]
        at = [
            _inside(index(tensors[1], *first, tirx.const(k, "int64")), old[batch + k])
            for k in range(named)
        ]
        return tensors[0](*place[:batch], *at, *place[rank:])

    shape = (*places[:-1], *old[batch + named :])
    return node.compute(shape, element, node.tensor(0), node.tensor(1))


def _indices(node: Node, position: int, size: int) -> Expr:
    """An input of indices; constant ones are checked, and counted from the front."""
    if not node.is_constant(position):
        return node.tensor(position)
    indices = node.parameter(position, "indices")
    if ((indices < -size) | (indices >= size)).any():
        node.refuse("an index is out of range; the file is not valid ONNX")
    return constant(np.where(indices < 0, indices + size, indices).astype(np.int64))


def _inside(at: Scalar, size: int) -> Scalar:
    """An index counted from the front, and within the tensor's memory whatever a file says."""
    front = tirx.Select(at < 0, at + size, at)
    return tirx.max(tirx.min(front, tirx.const(size - 1, "int64")), tirx.const(0, "int64"))


def take(node: Node, x: Expr, axis: int, places: Constant) -> Expr:
    """The entries of one axis that constant indices name."""
    x = node.bind(x)
    old = [int(size) for size in x.ty.shape]
    return node.compute(
        [*old[:axis], len(places), *old[axis + 1 :]],
        lambda tensors, *place: tensors[0](
            *place[:axis], index(tensors[1], place[axis]), *place[axis + 1 :]
        ),
        x, constant(places.astype(np.int64)), name=named_by_axis("take", old, axis),
    )  # fmt: skip


def named_by_axis(name: str, shape: Sequence[int], axis: int) -> str:
    """What the loops along one axis are called; of a map's rows and columns it can be told."""
    return f"{name}_{('rows', 'columns')[axis - 2]}" if len(shape) == 4 and axis > 1 else name


def one_hot(node: Node) -> Expr:
    """The second value where an index names the place on the new axis, else the first."""
    depth = node.integers(1, "depth")[0]
    off, on = node.parameter(2, "values").reshape(-1)
    places = node.shape()
    axis = node.axis("axis", -1, rank=len(places) + 1)

    def element(tensors: Sequence[Scalar], *place: Scalar) -> Scalar:
        at = tensors[0](*place[:axis], *place[axis + 1 :]).astype("int64")
        front = tirx.Select(at < 0, at + depth, at)
        dtype = off.dtype.name
        return tirx.Select(
            front == place[axis], tirx.const(on.item(), dtype), tirx.const(off.item(), dtype)
        )

    return node.compute((*places[:axis], depth, *places[axis:]), element, node.tensor(0))


def trilu(node: Node) -> Expr:
    """The upper or lower triangle of matrices, 0 elsewhere."""
    upper, diagonal = node.attribute("upper", 1), node.optional(1, "k")
    k = 0 if diagonal is None else int(diagonal.item())

    def element(tensors: Sequence[Scalar], *place: Scalar) -> Scalar:
        row, column = place[-2] + k, place[-1]
        inside = column >= row if upper else column <= row
        return tirx.Select(inside, tensors[0](*place), tirx.const(0, tensors[0].dtype))

    return node.compute(node.shape(), element, node.tensor(0))


def cum_sum(node: Node) -> Expr:
    """Sums of all elements before a place on one axis, and of that one."""
    axis, shape = node.checked_axis(node.integers(1, "axis")[0]), node.shape()
    exclusive, reverse = node.attribute("exclusive", 0), node.attribute("reverse", 0)

    def nest(tensor: te.Tensor) -> te.Tensor:
        k = reduction(shape[axis])

        def element(*place: Scalar) -> Scalar:
            first, last = (place[axis], k) if reverse else (k, place[axis])
            inside = first < last if exclusive else first <= last
            value = tensor(*place[:axis], k, *place[axis + 1 :])
            return te.sum(tirx.Select(inside, value, tirx.const(0, tensor.dtype)), axis=[k])

        return te.compute(sizes(shape), element, name="cum_sum")

    return node.loops(nest, node.tensor(0))
