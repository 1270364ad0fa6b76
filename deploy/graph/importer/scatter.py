"""Updates of single elements, at places that are constants."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from tvm import tirx

from deploy.graph.importer.node import Constant, Expr, Node, Scalar, constant, index


def scatter_elements(node: Node) -> Expr:
    """A copy of the data in which each update stands where its index names on one axis."""
    axis, old = node.axis("axis", 0), node.shape()
    indices = node.parameter(1, "indices").astype(np.int64)
    size = old[axis]
    if indices.shape != node.shape(2) or ((indices < -size) | (indices >= size)).any():
        node.refuse("its indices do not fit data and updates; the file is not valid ONNX")
    places: list[Constant] = list(np.indices(indices.shape))
    places[axis] = indices % size
    return _scattered(node, np.ravel_multi_index(places, old).reshape(-1))


def scatter_nd(node: Node) -> Expr:
    """A copy of the data in which each update stands where its row of indices names."""
    old, indices = node.shape(), node.parameter(1, "indices").astype(np.int64)
    named = indices.shape[-1]
    limits = np.array(old[:named])
    if named > len(old) or node.shape(2) != (*indices.shape[:-1], *old[named:]) or (
        (indices < -limits) | (indices >= limits)
    ).any():  # fmt: skip
        node.refuse("its indices do not fit data and updates; the file is not valid ONNX")
    rows = np.ravel_multi_index(tuple(np.moveaxis(indices % limits, -1, 0)), old[:named])
    rest = math.prod(old[named:])
    return _scattered(node, (rows.reshape(-1, 1) * rest + np.arange(rest)).reshape(-1))


_REDUCTIONS: dict[str, Callable[[Scalar, Scalar], Scalar]] = {
    "none": lambda _, update: update,
    "add": lambda value, update: value + update,
    "mul": lambda value, update: value * update,
    "max": tirx.max,
    "min": tirx.min,
}
_DEEPEST = 64  # updates of one element


def _scattered(node: Node, places: Constant) -> Expr:
    """The data with the updates in order, each at its place, all counted flat."""
    combine = _REDUCTIONS[node.choice("reduction", *_REDUCTIONS)]
    shape, updated = node.shape(), node.shape(2)
    # The updates of each element: the first ones in layer 0, the second ones in layer 1...
    order = np.argsort(places, kind="stable")
    starts = np.flatnonzero(np.diff(places[order], prepend=-1))
    nth = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    if nth.max(initial=0) >= _DEEPEST:
        node.refuse(f"more than {_DEEPEST} updates of one element are not supported")
    layers = np.full((int(nth.max(initial=0)) + 1, math.prod(shape)), -1, np.int64)
    layers[nth, places[order]] = order
    if node.attribute("reduction", "none") == "none":
        layers = layers.max(axis=0, keepdims=True)

    def element(tensors: Sequence[Scalar], *place: Scalar) -> Scalar:
        data, updates, table = tensors
        flat = _flat(place, shape)
        value = data(*place)
        for layer in range(len(layers)):
            source = index(table, tirx.const(layer, "int64"), flat)
            update = updates(*_unflat(tirx.max(source, tirx.const(0, "int64")), updated))
            value = tirx.Select(source >= 0, combine(value, update), value)
        return value

    return node.compute(shape, element, node.tensor(0), node.tensor(2), constant(layers))


def _flat(place: Sequence[Scalar], shape: Sequence[int]) -> Scalar:
    flat = tirx.const(0, "int64")
    for at, size in zip(place, shape, strict=True):
        flat = flat * size + at
    return flat


def _unflat(flat: Scalar, shape: Sequence[int]) -> list[Scalar]:
    place = []
    for size in reversed(shape):
        place.append(flat % size)
        flat = flat // size
    return place[::-1]
