"""From class scores to labels."""

from collections.abc import Iterator
from itertools import takewhile

from tvm import relax

from deploy.graph.match.found import Found
from deploy.graph.match.resample import Resampling, resampled
from deploy.graph.view import Graph, map_of, plane_of, shape_of
from lut.ops import ArgMax, Labels

_MOST_SMALL = 255  # classes whose labels are bytes
_FEW = 16  # pixels of a score, below which its neighbourhood is not worth a look


def match_labels(graph: Graph, var: relax.Var) -> Iterator[Found]:
    """``[resize ->] argmax over the classes -> uint8, or uint16 of more than 255 classes``.

    As one operation no plane is written at the image's size (159 MB at 1024x2048 and 19 classes).
    The scores at that size may be read elsewhere too: the network's second result is.
    """
    cast = graph.call(var, "relax.astype")
    index = cast.args[0] if cast is not None else None
    arg_max = graph.call(index, "relax.argmax")
    if arg_max is None or int(arg_max.attrs.axis) not in (1, -3) or arg_max.attrs.keepdims:
        return
    planes = arg_max.args[0]
    if not isinstance(planes, relax.Var) or len(shape_of(planes)) != 4 or shape_of(planes)[0] != 1:
        return
    if str(planes.ty.dtype) != "float32":
        return
    small = map_of(planes)[0] <= _MOST_SMALL
    if str(var.ty.dtype) != ("uint8" if small else "uint16"):
        return
    found = resampled(graph, planes)
    inner = tuple(takewhile(graph.used_once, (index, planes)))
    plain = Found(_arg_max(planes, None), [planes], var, inner[:1], {})
    if found is None:
        yield plain
        return
    if planes in inner:
        inner += found.inner
    (height, width), (out_height, out_width) = plane_of(found.source), plane_of(var)
    by_tables = Found(_arg_max(planes, found), [found.source], var, inner, {
        "rows": found.rows, "columns": found.columns,
    } if _arg_max(planes, found).resampled else {})  # fmt: skip
    if found.plain and small:
        labels = Found(
            Labels(*map_of(found.source), *plane_of(var)), [found.source], var, inner, {}
        )
        few = out_height * out_width < _FEW * height * width
        yield from (by_tables, labels) if few else (labels, by_tables)
    else:
        yield by_tables


def _arg_max(planes: relax.Var, found: Resampling | None) -> ArgMax:
    size = plane_of(planes)
    if found is None:
        return ArgMax(map_of(planes)[0], *size, *size)
    return ArgMax(*map_of(found.source), *size, found.taps)
