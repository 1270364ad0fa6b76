"""Some neighbouring channels of a map."""

from collections.abc import Iterator

from tvm import relax

from deploy.graph.match.found import Found
from deploy.graph.view import Graph, map_of, shape_of
from lut.ops import ChannelSlice


def match_channel_slice(graph: Graph, var: relax.Var) -> Iterator[Found]:
    """A slice of the channels' axis, without steps."""
    cut = graph.call(var, "relax.strided_slice")
    if cut is None or not isinstance(cut.args[0], relax.Var) or len(shape_of(var)) != 4:
        return
    axes, first, last, *steps = ([int(v.value) for v in given.fields] for given in cut.args[1:])
    if axes != [1] or (steps and steps[0] != [1]) or shape_of(var)[0] != 1:
        return
    source = cut.args[0]
    if str(var.ty.dtype) == "float32" and last[0] - first[0] == map_of(var)[0]:
        operation = ChannelSlice(*map_of(source), map_of(var)[0], first[0])
        yield Found(operation, [source], var, (), {})
