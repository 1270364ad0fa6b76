"""Global context: a 1x1 convolution of the mean of every channel."""

from collections.abc import Iterator

from tvm import relax

from deploy.graph.match.found import Found
from deploy.graph.view import Graph, conv_block, global_average, plane_of
from lut.ops import GlobalPool


def match_global_pool(graph: Graph, var: relax.Var) -> Iterator[Found]:
    """``global average -> 1x1 convolution [-> act]``; when the convolution alone reads the
    average."""
    block = conv_block(graph, var)
    source = global_average(graph, block.input) if block and block.pointwise else None
    if block is not None and source is not None and graph.used_once(block.input):
        pool = GlobalPool(block.cin, block.cout, *plane_of(source), block.act)
        weights = {"weight": block.weight, "bias": block.bias}
        inner = (*block.inner, block.input)
        yield Found(pool, [source], var, inner, weights, {"weight": block.input})
