"""From class scores to labels, or to masks."""

from collections.abc import Iterator
from itertools import takewhile
from typing import Any

from tvm import relax

from deploy.graph.match.found import Found
from deploy.graph.match.resample import Resampling, resampled
from deploy.graph.view import Graph, map_of, plane_of, shape_of
from lut.ops import ArgMax, Labels, Masks, Pair

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
    source, inner = _before(graph, (index,), planes, found)
    operation = ArgMax(*map_of(source), *plane_of(planes), _taps(found))
    any_size = Found(operation, [source], var, inner, _tables(operation, found))
    if found is None or not found.plain or not small:
        yield any_size
        if found is not None:  # the resize by itself, for who has no kernel for both
            alone = ArgMax(*map_of(planes), *plane_of(planes))
            yield Found(alone, [planes], var, tuple(takewhile(graph.used_once, (index,))), {})
        return
    labels = Found(Labels(*map_of(source), *plane_of(planes)), [source], var, inner, {})
    (height, width), (out_height, out_width) = plane_of(source), plane_of(planes)
    few = out_height * out_width < _FEW * height * width
    yield from (any_size, labels) if few else (labels, any_size)


def match_masks(graph: Graph, var: relax.Var) -> Iterator[Found]:
    """``[resize ->] greater than a number -> [one plane ->] uint8``."""
    cast = graph.call(var, "relax.astype")
    if cast is None or str(var.ty.dtype) != "uint8":
        return
    above, between = cast.args[0], []
    squeezed = graph.call(above, "relax.squeeze", "relax.reshape")
    if squeezed is not None:
        between.append(above)
        above = squeezed.args[0]
    compared = graph.call(above, "relax.greater")
    if compared is None or not _are_scores(compared.args[0]):
        return
    planes, threshold = compared.args[0], graph.constant(compared.args[1])
    classes, height, width = map_of(planes)
    one = squeezed is not None
    shape = (1, height, width) if one else (1, classes, height, width)
    if threshold is None or threshold.size != 1 or shape_of(var) != shape or (one and classes > 1):
        return
    found = resampled(graph, planes)
    source, inner = _before(graph, (*between, above), planes, found)
    operation = Masks(*map_of(source), height, width, _taps(found), one)
    weights = {"threshold": float(threshold.item()), **_tables(operation, found)}
    yield Found(operation, [source], var, inner, weights)


def _are_scores(value: relax.Expr) -> bool:
    if not isinstance(value, relax.Var) or len(shape_of(value)) != 4:
        return False
    return shape_of(value)[0] == 1 and str(value.ty.dtype) == "float32"


def _before(
    graph: Graph, behind: tuple[relax.Var, ...], planes: relax.Var, found: Resampling | None
) -> tuple[relax.Var, tuple[relax.Var, ...]]:
    """What is read, and the values from there on that nothing else reads; `behind` are those behind
    the planes."""
    if found is None:
        return planes, tuple(takewhile(graph.used_once, behind))
    inner = tuple(takewhile(graph.used_once, (*behind, planes)))
    return found.source, (*inner, *found.inner) if len(inner) > len(behind) else inner


def _taps(found: Resampling | None) -> Pair:
    return (1, 1) if found is None else found.taps


def _tables(operation: ArgMax | Masks, found: Resampling | None) -> dict[str, Any]:
    if found is None or not operation.resampled:
        return {}
    return {"rows": found.rows, "columns": found.columns}
