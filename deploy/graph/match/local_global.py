"""The high-resolution end of the MRMS head: LGE, LCF and the fuse layer (paper section 3.1)."""

from collections.abc import Iterator

from tvm import relax

from deploy.graph.match.found import Found
from deploy.graph.match.pointwise import gated
from deploy.graph.view import Graph, activation, bilinear_resize, conv_block, plane_of, sum_of
from lut.ops import LocalGlobal


def match_local_global(graph: Graph, var: relax.Var) -> Iterator[Found]:
    """``1x1 convolution [* gate] + resize(low) -> act -> 1x1 convolution [-> act]``.

    When: the gate is one value per channel, and nothing between is read elsewhere.
    """
    out = conv_block(graph, var)
    if out is None or not out.pointwise:
        return
    mid_act, total = activation(graph, out.input)
    if mid_act == "none" or not graph.used_once(out.input):
        return
    for local, up in sum_of(graph, total):
        low = bilinear_resize(graph, up)
        if low is None or not (graph.used_once(local) and graph.used_once(up)):
            continue
        for mid, gate, inner in gated(graph, local):
            block = LocalGlobal(
                mid.cin, mid.cout, out.cout, *plane_of(out.input), *plane_of(low),
                gate=gate is not None, mid_act=mid_act, act=out.act,
            )  # fmt: skip
            inputs = [mid.input, *([gate] if gate is not None else []), low]
            weights = {"mid": mid.weights, "out": out.weights}
            inner = (*out.inner, out.input, total, up, local, *inner)
            layers = {"mid": mid.input, "out": out.input}
            yield Found(block, inputs, var, inner, weights, layers)
