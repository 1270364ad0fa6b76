"""From class scores to labels."""

from collections.abc import Iterator
from itertools import takewhile

from tvm import relax

from deploy.graph.match.found import Found
from deploy.graph.view import Graph, bilinear_resize, map_of, plane_of
from lut.ops import Labels


def match_labels(graph: Graph, var: relax.Var) -> Iterator[Found]:
    """``resize -> argmax over the classes -> uint8``.

    As one operation no plane is written at the image's size (159 MB at 1024x2048 and 19 classes).
    The scores at that size may be read elsewhere too: the network's second result is.
    """
    cast = graph.call(var, "relax.astype")
    index = cast.args[0] if cast is not None else None
    arg_max = graph.call(index, "relax.argmax")
    if arg_max is None or str(var.ty.dtype) != "uint8":
        return
    over_classes = int(arg_max.attrs.axis) in (1, -3) and not arg_max.attrs.keepdims
    planes = arg_max.args[0]
    scores = bilinear_resize(graph, planes) if over_classes else None
    if scores is not None:
        labels = Labels(*map_of(scores), *plane_of(var))
        inner = tuple(takewhile(graph.used_once, (index, planes)))
        yield Found(labels, [scores], var, inner, {})
