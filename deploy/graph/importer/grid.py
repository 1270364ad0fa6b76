"""GridSample: values of a map at places that the network computes."""

from collections.abc import Sequence
from itertools import product

from tvm import tirx

from deploy.graph.importer.node import Expr, Node, Scalar

_A = -0.75  # of the cubic, as torch and onnxruntime have it


def grid_sample(node: Node) -> Expr:
    """Of the input (N, C, map) at a grid (N, places, axes of the map, the last one first), whose
    values are -1 to 1 from one edge of the map to the other."""
    mode = node.choice("mode", "linear", "bilinear", "nearest", "cubic", "bicubic")
    padding = node.choice("padding_mode", "zeros", "border", "reflection")
    aligned = bool(node.attribute("align_corners", 0))
    batch, channels, *sides = node.shape()
    grid = node.shape(1)
    rank = len(sides)
    if grid[0] != batch or grid[-1] != rank or len(grid) != rank + 2 or not node.is_float():
        node.refuse(f"a grid of shape {grid} on {node.shape()}; the file is not valid ONNX")
    kind = mode.removeprefix("bi")

    def element(tensors: Sequence[Scalar], n: Scalar, c: Scalar, *place: Scalar) -> Scalar:
        data, places = tensors
        taps = []
        for axis, size in enumerate(sides):
            at = places(n, *place, tirx.const(rank - 1 - axis, "int64"))
            taps.append(_taps(kind, _on_map(at, size, aligned)))
        total = tirx.const(0, data.dtype)
        for corner in product(*taps):
            inside, there, weight = [], [], tirx.const(1, data.dtype)
            for (index, factor), size in zip(corner, sides, strict=True):
                inside += [index >= 0, index < size]
                there.append(_kept(index, size, padding, aligned))
                weight = weight * factor
            value = data(n, c, *there)
            if padding == "zeros":
                value = tirx.Select(tirx.all(*inside), value, tirx.const(0, data.dtype))
            total = total + value * weight
        return total

    return node.compute((batch, channels, *grid[1:-1]), element, node.tensor(0), node.tensor(1))


def _on_map(at: Scalar, size: int, aligned: bool) -> Scalar:
    """From -1..1 to elements: the edges are the outer elements' centres if aligned, else their
    outer sides."""
    if aligned:
        return (at + 1) * ((size - 1) / 2)
    return ((at + 1) * size - 1) / 2


def _taps(kind: str, at: Scalar) -> list[tuple[Scalar, Scalar]]:
    """Indices along one axis, and the weight of each."""
    # What is far away is no index; it is outside all the same.
    limit = tirx.const(float(1 << 30), at.ty.dtype)
    near = tirx.max(tirx.min(at, limit), -limit)
    if kind == "nearest":
        return [(tirx.nearbyint(near).astype("int64"), tirx.const(1, at.ty.dtype))]
    floor = tirx.floor(near)
    first, t = floor.astype("int64"), near - floor
    if kind == "linear":
        return [(first, 1 - t), (first + 1, t)]
    distances = [1 + t, t, 1 - t, 2 - t]
    near_ones = [((_A + 2) * d - (_A + 3)) * d * d + 1 for d in distances]
    far_ones = [((_A * d - 5 * _A) * d + 8 * _A) * d - 4 * _A for d in distances]
    weights = [far_ones[0], near_ones[1], near_ones[2], far_ones[3]]
    return [(first + offset - 1, weight) for offset, weight in enumerate(weights)]


def _kept(index: Scalar, size: int, padding: str, aligned: bool) -> Scalar:
    """An index within the map: the edge's, or mirrored at it."""
    zero, last = tirx.const(0, "int64"), tirx.const(size - 1, "int64")
    if padding == "reflection" and size > 1:
        period = 2 * (size - 1) if aligned else 2 * size
        there = tirx.floormod(index, tirx.const(period, "int64"))
        index = tirx.Select(there < size, there, (period if aligned else period - 1) - there)
    return tirx.max(tirx.min(index, last), zero)
