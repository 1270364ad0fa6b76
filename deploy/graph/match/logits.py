"""Class scores at the image's size, where they are the network's result."""

from collections.abc import Iterator

from tvm import relax

from deploy.graph.match.found import Found
from deploy.graph.view import Graph, bilinear_resize, map_of, plane_of
from lut.ops import Logits


def match_logits(graph: Graph, var: relax.Var) -> Iterator[Found]:
    """A resize that the function returns."""
    scores = bilinear_resize(graph, var) if graph.is_result(var) else None
    if scores is not None:
        yield Found(Logits(*map_of(scores), *plane_of(var)), [scores], var, (), {})
