"""Concatenations that no reader takes where they are."""

from collections.abc import Iterator

from tvm import relax

from deploy.graph.match.conv import parts_of
from deploy.graph.match.found import Found
from deploy.graph.view import Graph, map_of, plane_of, shape_of
from lut.ops import Concat


def match_concat(graph: Graph, var: relax.Var) -> Iterator[Found]:
    """Maps one behind the other, and concatenations of these that nothing else reads."""
    if len(getattr(var.ty, "shape", None) or ()) != 4 or shape_of(var)[0] != 1:
        return
    parts, inner = parts_of(graph, var)
    if len(parts) > 1 and str(var.ty.dtype) == "float32":
        operation = Concat(tuple(map_of(part)[0] for part in parts), *plane_of(var))
        yield Found(operation, parts, var, inner[1:], {})
