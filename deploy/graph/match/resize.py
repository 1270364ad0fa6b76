"""Bilinear resizes that no larger operation has taken in."""

from collections.abc import Iterator

from tvm import relax

from deploy.graph.match.found import Found
from deploy.graph.view import Graph, bilinear_resize, map_of, plane_of
from lut.ops import Resize


def match_resize(graph: Graph, var: relax.Var) -> Iterator[Found]:
    """``image.resize2d``, bilinear with half-pixel centres."""
    source = bilinear_resize(graph, var)
    if source is not None:
        yield Found(Resize(*map_of(source), *plane_of(var)), [source], var, (), {})
