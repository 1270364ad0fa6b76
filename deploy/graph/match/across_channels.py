"""The largest, the mean or the sum of all channels."""

from collections.abc import Iterator

from tvm import relax

from deploy.graph.match.found import Found
from deploy.graph.view import Graph, map_of, shape_of
from lut.ops import AcrossChannels


def match_across_channels(graph: Graph, var: relax.Var) -> Iterator[Found]:
    """A reduction over the channels of a map, which keeps it a map."""
    for reduce in ("max", "mean", "sum"):
        call = graph.call(var, f"relax.{reduce}")
        source = None if call is None else call.args[0]
        if not isinstance(source, relax.Var) or not call.attrs.keepdims or not call.attrs.axis:
            continue
        shape = shape_of(source)
        if len(shape) != 4 or shape[0] != 1 or str(source.ty.dtype) != "float32":
            continue
        if [int(axis) % 4 for axis in call.attrs.axis] == [1]:
            yield Found(AcrossChannels(*map_of(source), reduce), [source], var, (), {})
