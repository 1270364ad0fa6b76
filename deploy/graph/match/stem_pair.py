"""The stem and the two blocks behind it."""

from collections.abc import Iterator

from tvm import relax

from deploy.graph.match.found import Found
from deploy.graph.match.inverted_residual import match_inverted_residual
from deploy.graph.match.stem_block import match_stem_block
from deploy.graph.view import Graph
from lut.ops import InvertedResidual, StemBlock, StemPair


def match_stem_pair(graph: Graph, var: relax.Var) -> Iterator[Found]:
    """A stem block, and behind it an inverted residual that expands and has no residual.

    When: nothing else reads the map between the two.
    """
    for second in match_inverted_residual(graph, var):
        block = second.operation
        assert isinstance(block, InvertedResidual)
        (source,) = second.inputs
        if not block.expand or block.residual or not graph.used_once(source):
            continue
        for first in match_stem_block(graph, source):
            assert isinstance(first.operation, StemBlock)
            inner = (*second.inner, source, *first.inner)
            weights = {"first": first.weights, "second": second.weights}
            pair = StemPair(first.operation, block)
            yield Found(pair, first.inputs, var, inner, weights, parts=(first, second))
