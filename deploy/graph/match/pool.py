"""Max and average pools."""

from collections.abc import Iterator
from typing import Any

from tvm import relax

from deploy.graph.match.found import Found
from deploy.graph.match.steps import steps_to
from deploy.graph.view import Graph, global_average, map_of, shape_of
from lut.ops import Pool


def match_pool(graph: Graph, var: relax.Var) -> Iterator[Found]:
    """``pool -> steps``: of windows, of whole rows or columns, or the largest of the whole map."""
    for steps in steps_to(graph, var):
        found = _windows(graph, steps.source) or _whole(graph, steps.source)
        if found is None:
            continue
        source, window = found
        pool = Pool(*map_of(source), **window, then=steps.then)
        weights = {"steps": list(steps.vectors)}
        yield Found(pool, [source, *steps.operands], var, steps.inner, weights)


def _windows(graph: Graph, var: relax.Var) -> tuple[relax.Var, dict[str, Any]] | None:
    call = graph.call(var, "relax.nn.max_pool2d", "relax.nn.avg_pool2d")
    if call is None or not isinstance(call.args[0], relax.Var):
        return None
    attrs, reduce = call.attrs, "max"
    if attrs.layout != "NCHW" or attrs.ceil_mode:
        return None
    if call.op.name == "relax.nn.avg_pool2d":
        reduce = "mean_padded" if attrs.count_include_pad else "mean"
    fields = {
        "kernel": attrs.pool_size, "stride": attrs.strides, "dilation": attrs.dilation,
        "pad": attrs.padding,
    }  # fmt: skip
    window = {name: tuple(int(v) for v in values) for name, values in fields.items()}
    return call.args[0], {**window, "reduce": reduce}


def _whole(graph: Graph, var: relax.Var) -> tuple[relax.Var, dict[str, Any]] | None:
    """A mean over rows or columns, or the largest over one of them or both."""
    call = graph.call(var, "relax.mean", "relax.max")
    source = None if call is None else call.args[0]
    if not isinstance(source, relax.Var) or not call.attrs.keepdims or call.attrs.axis is None:
        return None
    if len(shape_of(source)) != 4 or shape_of(source)[0] != 1:
        return None
    if global_average(graph, var) is not None:
        return None
    axes = sorted(int(axis) % 4 for axis in call.attrs.axis)
    if axes not in ([2], [3], [2, 3]) or str(source.ty.dtype) != "float32":
        return None
    _, height, width = map_of(source)
    kernel = (height if 2 in axes else 1, width if 3 in axes else 1)
    reduce = "max" if call.op.name == "relax.max" else "mean"
    return source, {"kernel": kernel, "reduce": reduce}
