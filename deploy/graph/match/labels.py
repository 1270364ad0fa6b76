"""From class scores to labels."""

from collections.abc import Iterator
from itertools import takewhile

from tvm import relax

from deploy.graph.match.found import Found
from deploy.graph.match.resample import Resampling, resampled
from deploy.graph.view import Graph, map_of, plane_of, shape_of
from lut.ops import ArgMax, Labels, Masks

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
    if not _are_scores(planes):
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
    operation = _arg_max(planes, found)
    tables = {"rows": found.rows, "columns": found.columns} if operation.resampled else {}
    by_tables = Found(operation, [found.source], var, inner, tables)
    if found.plain and small:
        labels = Found(
            Labels(*map_of(found.source), *plane_of(var)), [found.source], var, inner, {}
        )
        few = out_height * out_width < _FEW * height * width
        yield from (by_tables, labels) if few else (labels, by_tables)
    else:
        yield by_tables


def match_masks(graph: Graph, var: relax.Var) -> Iterator[Found]:
    """``[resize ->] greater than a number -> [one plane ->] uint8``."""
    cast = graph.call(var, "relax.astype")
    if cast is None or str(var.ty.dtype) != "uint8":
        return
    above = cast.args[0]
    squeezed = graph.call(above, "relax.squeeze", "relax.reshape")
    between = (above,) if squeezed is not None else ()
    above = above if squeezed is None else squeezed.args[0]
    compared = graph.call(above, "relax.greater")
    threshold = None if compared is None else graph.constant(compared.args[1])
    planes = None if compared is None else compared.args[0]
    if threshold is None or threshold.size != 1 or not _are_scores(planes):
        return
    classes, *size = map_of(planes)
    if shape_of(var) not in ((1, *size), (1, classes, *size)) or (
        squeezed is not None and classes > 1
    ):
        return
    found = resampled(graph, planes)
    weights = {"threshold": float(threshold.item())}
    inner = tuple(takewhile(graph.used_once, (*between, above, planes)))
    if found is None:
        inner = tuple(value for value in inner if not value.same_as(planes))
        masks = Masks(classes, *size, *size, one=len(shape_of(var)) == 3)
        yield Found(masks, [planes], var, inner, weights)
        return
    inner += found.inner if planes in inner else ()
    masks = Masks(*map_of(found.source), *size, found.taps, one=len(shape_of(var)) == 3)
    if masks.resampled:
        weights = {**weights, "rows": found.rows, "columns": found.columns}
    yield Found(masks, [found.source], var, inner, weights)


def _are_scores(value: relax.Expr) -> bool:
    if not isinstance(value, relax.Var) or len(shape_of(value)) != 4:
        return False
    return shape_of(value)[0] == 1 and str(value.ty.dtype) == "float32"


def _arg_max(planes: relax.Var, found: Resampling | None) -> ArgMax:
    size = plane_of(planes)
    if found is None:
        return ArgMax(map_of(planes)[0], *size, *size)
    return ArgMax(*map_of(found.source), *size, found.taps)
