"""Steps on a map that no other operation has taken in."""

from collections.abc import Iterator

from tvm import relax

from deploy.graph.match.found import Found
from deploy.graph.match.steps import steps_behind
from deploy.graph.view import Graph, map_of
from lut.ops import Elementwise


def match_elementwise(graph: Graph, var: relax.Var) -> Iterator[Found]:
    """``map -> steps``."""
    for steps in steps_behind(graph, var):
        operation = Elementwise(*map_of(var), then=steps.then)
        weights = {"steps": list(steps.vectors)}
        yield Found(operation, [steps.source, *steps.operands], var, steps.inner, weights)
