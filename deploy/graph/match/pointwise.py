"""1x1 convolutions, with what follows them."""

from collections.abc import Iterator

from tvm import relax

from deploy.graph.match.found import Found
from deploy.graph.view import (
    Array,
    ConvBlock,
    Graph,
    activation,
    bilinear_resize,
    conv_block,
    plane_of,
    product_of,
    shape_of,
    sum_of,
)
from lut.ops import Addend, Pointwise

_Vars = tuple[relax.Var, ...]


def match_pointwise(graph: Graph, var: relax.Var) -> Iterator[Found]:
    """``1x1 convolution [* gate] [+ addend] [-> act]``.

    ``gate`` is one value per channel; the addend a map, one value per channel, or a map that is
    upsampled bilinearly, which then is never written at the larger size. When: nothing between is
    read elsewhere.
    """
    act, value = activation(graph, var)
    outer: _Vars = () if act == "none" else (value,)
    for own, other in sum_of(graph, value):
        if not graph.used_once(own) or graph.constant(other) is not None:
            continue
        for conv, gate, inner in gated(graph, own):
            for add, addend, between in _addends(graph, conv, own, other):
                low = plane_of(addend) if add == "low" else (0, 0)
                operation = Pointwise(
                    conv.cin, conv.cout, *plane_of(conv.input), act, add, gate is not None, *low
                )
                inputs = [conv.input, *([gate] if gate is not None else []), addend]
                inner = (*outer, own, *inner, *between)
                layers = {"weight": conv.input}
                yield Found(operation, inputs, var, inner, _weights(conv), layers)
    for conv, gate, inner in gated(graph, value):
        operation = Pointwise(
            conv.cin, conv.cout, *plane_of(conv.input), act, gate=gate is not None
        )
        inputs = [conv.input, *([gate] if gate is not None else [])]
        layers = {"weight": conv.input}
        yield Found(operation, inputs, var, (*outer, *inner), _weights(conv), layers)


def _weights(conv: ConvBlock) -> dict[str, Array]:
    return {"weight": conv.weight, "bias": conv.bias}


def gated(graph: Graph, value: relax.Var) -> Iterator[tuple[ConvBlock, relax.Var | None, _Vars]]:
    """``1x1 convolution * gate`` that ends at `value`, or the convolution alone: each with the
    values before it."""
    for conv_var, gate in product_of(graph, value):
        block = conv_block(graph, conv_var, with_act=False)
        if block is None or not block.pointwise or not graph.used_once(conv_var):
            continue
        if shape_of(gate) == (1, block.cout, 1, 1):
            yield block, gate, (*block.inner, conv_var)
    block = conv_block(graph, value, with_act=False)
    if block is not None and block.pointwise:
        yield block, None, block.inner


def _addends(
    graph: Graph, conv: ConvBlock, own: relax.Var, other: relax.Var
) -> Iterator[tuple[Addend, relax.Var, _Vars]]:
    """How `other` can be added to what ends at `own`: the kind, what is read, values between."""
    whole, channel = shape_of(own), (1, conv.cout, 1, 1)
    low = bilinear_resize(graph, other)
    if low is not None and graph.used_once(other) and shape_of(other) == whole:
        yield "low", low, (other,)
    if shape_of(other) == whole:
        yield "map", other, ()
    elif shape_of(other) == channel:
        yield "channel", other, ()
