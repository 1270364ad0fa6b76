"""Which operations are computed in 8 bits: those whose maps have grids, and which have kernels."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import relax

from deploy.graph.match import Found
from deploy.graph.stored import Grid, on_grid
from deploy.graph.view import Graph, values_between
from lut.ops import Operation, with_dtype

Grids = Mapping[relax.Var, Grid]
_SIX = 6 * (1 + 1e-3)
_LAYERS = ("expand", "depthwise", "project")  # of a block, in order
_LEAST, _MOST = -(2**31), 2**31 - 1


@dataclass(frozen=True)
class ByteScales:
    """What the numbers of an operation in 8 bits mean: the grids of what it reads, of the maps that
    are never written, of what it writes; and of each layer's weights a scale per output channel."""

    inputs: tuple[Grid, ...]
    weights: tuple[NDArray[np.float32], ...]
    output: Grid
    hidden: tuple[Grid, ...] = ()


def chosen(
    graph: Graph, found: Found, grids: Grids, has: Callable[[Operation], bool]
) -> Found | None:
    """An operation as it shall be placed: in 8 bits where that can be, else as it is; None where it
    would swallow a map that is to be rounded to a grid."""
    between = {*found.inner}
    between |= values_between(graph, (found.output, *found.inner), found.inputs)
    rounded = {var for var in between if var in grids}
    if rounded == set(found.hidden):
        in_bytes = _in_bytes(found, grids)
        if in_bytes is not None and has(in_bytes.operation):
            return in_bytes
    return None if rounded else found


def _in_bytes(found: Found, grids: Grids) -> Found | None:
    if not all(var in grids for var in (*found.inputs, found.output)):
        return None
    inputs, hidden = ([grids[v] for v in values] for values in (found.inputs, found.hidden))
    layers = _layers(found.weights, [inputs[0], *hidden] if inputs else [])
    if layers is None:
        return None
    weights, scales = layers
    output = grids[found.output]
    meaning = ByteScales(tuple(inputs), scales, output, tuple(hidden))
    operation = _saturating(with_dtype(found.operation, "int8"), (*hidden, output))
    return replace(found, operation=operation, weights={**weights, "scales": meaning})


def _layers(
    weights: Mapping[str, Any], read: list[Grid]
) -> tuple[dict[str, Any], tuple[NDArray[np.float32], ...]] | None:
    """Weights in int8 and biases in int32, under the names that they have, and the scales of the
    weights; None where they are not on a grid of 8 bits. `read` are the grids of the layers'
    inputs."""
    packed = dict(weights)
    scales: list[NDArray[np.float32]] = []
    names = [name for name in _LAYERS if weights.get(name) is not None]
    pairs = [weights[name] for name in names]
    if not names and "weight" in weights:
        pairs = [(weights["weight"], weights["bias"])]
    for number, (weight, bias) in enumerate(pairs):
        found = on_grid(weight)
        if found is None or number >= len(read):
            return None
        codes, scale = found
        unit = read[number].scale * scale.astype(np.float64)
        whole = np.rint(np.asarray(bias, np.float64) / unit)
        if whole.min() < _LEAST or whole.max() > _MOST:
            return None
        scales.append(scale)
        if names:
            packed[names[number]] = codes, whole.astype(np.int32)
        else:
            packed |= {"weight": codes, "bias": whole.astype(np.int32)}
    return packed, tuple(scales)


def _saturating(operation: Operation, written: tuple[Grid, ...]) -> Operation:
    """Without an activation that the bytes of all its maps do the work of."""
    act = getattr(operation, "act", "none")
    if _ends_linear(operation):
        written = written[:-1]
    rectified = all(grid.zero == 0 for grid in written)
    most = max((grid.most for grid in written), default=0.0)
    if rectified and (act == "relu" or (act == "relu6" and most <= _SIX)):
        return replace(operation, act="none")  # type: ignore[call-arg]
    return operation


def _ends_linear(operation: Operation) -> bool:
    """Whether the activation is of hidden maps alone."""
    return operation.kind == "inverted_residual"
