"""Convolutions of any window, with what they read and what follows them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, get_args

import numpy as np
from tvm import relax

from deploy.graph.match.found import Found
from deploy.graph.match.stem import image_end
from deploy.graph.match.steps import steps_to
from deploy.graph.view import Array, Graph, map_of, shape_of, spread_of
from lut.ops import CHANNELS, Activation, Conv


def match_conv(graph: Graph, var: relax.Var) -> Iterator[Found]:
    """``[concat or image end ->] convolution -> steps``.

    Maps that are concatenated are read where they are, whoever else reads the concatenation, unless
    the convolution is in groups of more than one channel, or has no kernel for them.
    Factors and shifts per channel right behind the convolution become part of its weight and bias.
    """
    for steps in steps_to(graph, var):
        window = _window(graph, steps.source)
        if window is None:
            continue
        then, vectors = list(steps.then), list(steps.vectors)
        weight, bias = window.weight.astype(np.float64), np.zeros(len(window.weight))
        while then and then[0] == "scale":
            factor, shift = (v.astype(np.float64) for v in vectors[:2])
            weight, bias = weight * factor[:, None, None, None], bias * factor + shift
            then, vectors = then[1:], vectors[2:]
        parts, between = parts_of(graph, window.input)
        if 1 < window.groups < len(weight):
            parts, between = [window.input], ()
        operation = Conv(
            tuple(map_of(part)[0] for part in parts),
            len(weight), *map_of(window.input)[1:], weight.shape[2:], window.stride,
            window.dilation, window.pad, window.spread, window.groups, then=tuple(then),
        )  # fmt: skip
        weights = {
            "weight": weight.astype(np.float32), "bias": bias.astype(np.float32),
            "steps": vectors, "normalisation": None,
        }  # fmt: skip
        inner, layers = (*steps.inner, *window.inner), {"weight": window.input}
        if weight.shape[1] == CHANNELS and window.groups == 1 and window.spread == (1, 1):
            end = image_end(graph, window.input)
            if end is not None:
                of_image = replace(operation, cin=(CHANNELS,), source=end.layout)
                normalised = weights | {"normalisation": end.normalisation}
                given = [end.tensor, *steps.operands]
                yield Found(of_image, given, var, inner, normalised, layers)
        read = [*parts, *steps.operands]
        yield Found(operation, read, var, (*inner, *between), weights, layers)
        if len(parts) > 1:
            operation = replace(operation, cin=(sum(operation.cin),))
            read = [window.input, *steps.operands]
            yield Found(operation, read, var, inner, weights, layers)


def match_conv_with_steps(graph: Graph, var: relax.Var) -> Iterator[Found]:
    """As `match_conv`, where more follows than `Pointwise` and `Depthwise` know, or the input is
    concatenated."""
    for found in match_conv(graph, var):
        operation = found.operation
        assert isinstance(operation, Conv)
        then, known = list(operation.then), [get_args(Activation)]
        if operation.groups == 1 and operation.kernel == (1, 1):
            known = [("mul_channel",), ("add", "add_channel"), *known]
        for steps in known:
            then = then[1:] if then and then[0] in steps else then
        if len(operation.cin) > 1 or then:
            yield found


def match_stem_with_steps(graph: Graph, var: relax.Var) -> Iterator[Found]:
    """As `match_conv_with_steps`, of an image."""
    for found in match_conv_with_steps(graph, var):
        if isinstance(found.operation, Conv) and found.operation.source != "maps":
            yield found


@dataclass(frozen=True)
class _Window:
    input: relax.Var
    weight: Array
    stride: Any
    dilation: Any
    pad: Any
    spread: Any
    groups: int
    inner: tuple[relax.Var, ...]


def _window(graph: Graph, var: relax.Var) -> _Window | None:
    """The convolution that a value is, if its weight is a constant; of an input with zeros between
    its elements that of the elements."""
    conv = graph.call(var, "relax.nn.conv2d")
    weight = None if conv is None else graph.constant(conv.args[1])
    if weight is None or weight.ndim != 4 or not isinstance(conv.args[0], relax.Var):
        return None
    attrs = conv.attrs
    if attrs.data_layout != "NCHW" or attrs.kernel_layout != "OIHW" or shape_of(var)[0] != 1:
        return None
    value, spread = conv.args[0], (1, 1)
    inner: tuple[relax.Var, ...] = ()
    spaced = spread_of(graph, value)
    if spaced is not None:
        inner = (value,) if graph.used_once(value) else ()
        value, spread = spaced
    return _Window(
        value, weight, _ints(attrs.strides), _ints(attrs.dilation), _ints(attrs.padding), spread,
        int(attrs.groups), inner,
    )  # fmt: skip


def _ints(values: Any) -> tuple[int, ...]:  # noqa: ANN401 - TVM's array
    return tuple(int(value) for value in values)


def parts_of(graph: Graph, var: relax.Var) -> tuple[list[relax.Var], tuple[relax.Var, ...]]:
    """The maps that are concatenated to a value, else itself, and the concatenations that nothing
    else reads."""
    concat = graph.call(var, "relax.concat")
    fields = getattr(concat.args[0], "fields", None) if concat is not None else None
    if not fields or int(concat.attrs.axis) not in (1, -3):
        return [var], ()
    if not all(isinstance(f, relax.Var) and len(shape_of(f)) == 4 for f in fields):
        return [var], ()
    parts: list[relax.Var] = []
    inner: tuple[relax.Var, ...] = (var,) if graph.used_once(var) else ()
    for part in fields:
        below, between = parts_of(graph, part)
        parts += below
        inner += between if inner else ()
    return parts, inner
