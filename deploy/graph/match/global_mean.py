"""The mean of every channel."""

from collections.abc import Iterator

from tvm import relax

from deploy.graph.match.found import Found
from deploy.graph.view import Graph, global_average, map_of, shape_of
from lut.ops import GlobalMean


def match_global_mean(graph: Graph, var: relax.Var) -> Iterator[Found]:
    """A mean over height and width."""
    source = global_average(graph, var)
    if source is not None and shape_of(source)[0] == 1:
        yield Found(GlobalMean(*map_of(source)), [source], var, (), {})
