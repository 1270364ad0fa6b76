"""Depthwise convolutions."""

from collections.abc import Iterator

from tvm import relax

from deploy.graph.match.found import Found
from deploy.graph.view import Graph, conv_block, plane_of
from lut.ops import Depthwise


def match_depthwise(graph: Graph, var: relax.Var) -> Iterator[Found]:
    """``depthwise convolution [-> act]``."""
    block = conv_block(graph, var)
    if block is not None and block.depthwise:
        depthwise = Depthwise(
            block.cin, *plane_of(block.input), block.kernel, block.stride, block.dilation,
            block.act,
        )  # fmt: skip
        weights = {"weight": block.weight, "bias": block.bias}
        yield Found(depthwise, [block.input], var, block.inner, weights, {"weight": block.input})
