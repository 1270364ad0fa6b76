"""Which operations are computed in 8 bits: those whose maps have grids, and which have kernels."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import relax

from deploy.graph.match import Found
from deploy.graph.stored import codes_of
from deploy.graph.view import Graph, values_between
from deploy.grid import Grid, Scales
from lut.ops import (
    GlobalPool,
    InvertedResidual,
    LocalGlobal,
    Operation,
    Pointwise,
    StemBlock,
    StemPair,
    with_dtype,
)

Grids = Mapping[relax.Var, Grid]
_READING = ("add", "sub", "mul")  # steps that read another map begin so
_REAL = Grid(1.0, 0)  # of numbers themselves
_LEAST, _MOST = -(2**31), 2**31 - 1
_OF_BIAS = 2**20  # quanta of a bias that stands alone: exact in float32


def chosen(
    graph: Graph, found: Found, grids: Grids, has: Callable[[Operation], bool]
) -> Found | None:
    """An operation as it shall be placed: in 8 bits where that can be, else as it is; None where it
    would swallow a map that is to be rounded to a grid."""
    real = _of_real_mean(found, grids)
    if real is not None and has(real.operation):
        return real
    between = {*found.inner}
    between |= values_between(graph, (found.output, *found.inner), found.inputs)
    rounded = {var for var in between if var in grids}
    if rounded == hidden_of(found):
        in_bytes = _in_bytes(found, grids)
        if in_bytes is not None and has(in_bytes.operation):
            return in_bytes
    return None if rounded else found


def _of_real_mean(found: Found, grids: Grids) -> Found | None:
    """A mean of bytes and its layer in float32, where neither has a grid but the weights have."""
    if not isinstance(found.operation, GlobalPool):
        return None
    (given,), (mean,) = found.inputs, found.layers.values()
    on = codes_of(found.weights["weight"])
    if given not in grids or mean in grids or found.output in grids or on is None:
        return None
    codes, scale = on
    meaning = Scales((grids[given],), (scale,), _REAL)
    operation = replace(with_dtype(found.operation, "int8"), real=True)  # type: ignore[call-arg]
    return replace(found, operation=operation, weights={
        "weight": codes, "bias": found.weights["bias"], "scales": meaning,
    })  # fmt: skip


def _in_bytes(found: Found, grids: Grids) -> Found | None:
    if found.parts:
        return _of_parts(found, grids)
    read = list(found.layers.values())
    inputs, hidden = list(found.inputs), [var for var in read if var not in found.inputs]
    if _reads_image(found.operation) and read[0] not in inputs:
        inputs[0] = hidden.pop(0)  # the normalised image, which is never written
    beside = {inputs[number] for number in channel_operands(found.operation, len(inputs))}
    wide = found.output not in grids
    if wide and not hasattr(found.operation, "wide"):
        return None
    if not all(var in grids or var in beside for var in (*inputs, *hidden)):
        return None
    layers = _layers(found, [grids[var] for var in read])
    if layers is None:
        return None
    weights, scales = layers
    output, between = grids.get(found.output, _REAL), tuple(grids[var] for var in hidden)
    given = tuple(_REAL if var in beside else grids[var] for var in inputs)
    meaning = Scales(given, scales, output, between)
    operation = with_dtype(found.operation, "int8")
    widened = {"wide": True} if wide else {}
    operation = replace(_saturating(operation, between, output), **widened)
    return replace(found, operation=operation, weights={**weights, "scales": meaning})


def channel_operands(operation: Operation, inputs: int) -> list[int]:
    """Which of an operation's inputs, so many, are one value per channel beside a map: they are
    float32 in 8 bits, too."""
    if isinstance(operation, Pointwise):
        return ([1] if operation.gate else []) + (
            [1 + operation.gate] if operation.add == "channel" else []
        )
    if isinstance(operation, LocalGlobal):
        return [1] if operation.gate else []
    # Maps that steps read come last.
    steps = [step for step in getattr(operation, "then", ()) if step.startswith(_READING)]
    first = inputs - len(steps)
    return [first + i for i, step in enumerate(steps) if step.endswith("_channel")]


def _of_parts(found: Found, grids: Grids) -> Found | None:
    first, second = (_in_bytes(part, grids) for part in found.parts)
    if first is None or second is None:
        return None
    assert isinstance(first.operation, StemBlock)
    assert isinstance(second.operation, InvertedResidual)
    weights = {"first": first.weights, "second": second.weights}
    pair = StemPair(first.operation, second.operation)
    return replace(found, operation=pair, weights=weights)


def hidden_of(found: Found) -> set[relax.Var]:
    """The maps that layers read and nothing writes."""
    if found.parts:
        first, second = found.parts
        return {*hidden_of(first), *hidden_of(second), first.output}
    return set(found.layers.values()) - set(found.inputs)


def _reads_image(operation: Operation) -> bool:
    return getattr(operation, "source", "maps") != "maps"


def _layers(
    found: Found, read: list[Grid]
) -> tuple[dict[str, Any], tuple[NDArray[np.float32], ...]] | None:
    """Weights in int8 and biases in int32, under the names that they have, and the scales of the
    weights; None where they are not on a grid of 8 bits. `read` are the grids of the layers'
    inputs."""
    packed, scales = dict(found.weights), []
    for name, grid in zip(found.layers, read, strict=True):
        alone = name == "weight"
        given = (packed["weight"], packed["bias"]) if alone else packed[name]
        on = codes_of(given[0])
        if on is None:
            return None
        codes, scale = on
        scale = _scales_of_bias_alone(codes, scale, given[1], grid)
        whole = np.rint(np.asarray(given[1], np.float64) / (grid.scale * scale.astype(np.float64)))
        if whole.min() < _LEAST or whole.max() > _MOST:
            return None
        bias = whole.astype(np.int32)
        packed |= {"weight": codes, "bias": bias} if alone else {name: (codes, bias)}
        scales.append(scale)
    return packed, tuple(scales)


def _scales_of_bias_alone(
    codes: NDArray[np.int8], scale: NDArray[np.float32], bias: NDArray[Any], read: Grid
) -> NDArray[np.float32]:
    """The scales, where a channel has a bias and no weights, which say none, fine enough for it."""
    given = np.abs(np.asarray(bias, np.float64))
    alone = ~codes.reshape(len(codes), -1).any(1) & (given > 0)
    return np.where(alone, given / (read.scale * _OF_BIAS), scale).astype(np.float32)


# The activations of an operation by its field, and the map that each makes: a number of a hidden
# one, or the output (-1).
_ACTS: dict[str, tuple[tuple[str, tuple[int, ...]], ...]] = {
    "inverted_residual": (("act", (0, -2)),),
    "stem_block": (("stem_act", (0,)), ("act", (1,))),
    "local_global": (("mid_act", (0,)), ("act", (-1,))),
}


def _saturating(operation: Operation, hidden: tuple[Grid, ...], output: Grid) -> Operation:
    """Without the activations that bytes do the work of."""
    maps = (*hidden, output)
    for name, numbers in _ACTS.get(operation.kind, (("act", (-1,)),)):
        act = getattr(operation, name, "none")
        if all(saturates(act, maps[number]) for number in numbers):
            operation = replace(operation, **{name: "none"})
    then = getattr(operation, "then", ())
    if then and saturates(then[-1], output):
        operation = replace(operation, then=then[:-1])  # type: ignore[call-arg]
    return operation


def saturates(act: str, grid: Grid) -> bool:
    """Whether the bytes of a map hold no number that an activation would change."""
    return (
        grid != _REAL and grid.zero == 0 and (act == "relu" or (act == "relu6" and grid.within_six))
    )
