"""MobileNetV2's block."""

from collections.abc import Iterator

from tvm import relax

from deploy.graph.match.found import Found
from deploy.graph.view import ConvBlock, Graph, conv_block, plane_of, shape_of, sum_of
from lut.ops import InvertedResidual


def match_inverted_residual(graph: Graph, var: relax.Var) -> Iterator[Found]:
    """``[1x1 convolution, act ->] depthwise, act -> 1x1 convolution [-> + input]``.

    When: both activations are equal, and no value between is read elsewhere. An activation after
    the projection stays behind; without an expansion (a separable convolution of DeepLab) such a
    block is none: two operations, the second of which applies the activation, are faster than one
    and one more pass over its output, unless there is an expansion, whose map is the widest.
    """
    for projected, other in sum_of(graph, var):
        if graph.used_once(projected):
            yield from _block(graph, projected, var, other)
    yield from _block(graph, var, var, None)


def _block(
    graph: Graph, projected: relax.Var, output: relax.Var, residual: relax.Expr | None
) -> Iterator[Found]:
    project = conv_block(graph, projected, with_act=False)
    if project is None or not project.pointwise or not graph.used_once(project.input):
        return
    depthwise = conv_block(graph, project.input)
    if depthwise is None or not depthwise.depthwise or depthwise.act == "none":
        return
    expand = _expansion(graph, depthwise)
    if expand is not None:
        yield from _whole(expand, depthwise, project, output, residual)
    # The expansion may belong to another operation: then there is the block without it.
    if residual is not None or not graph.before_activation(output):
        yield from _whole(None, depthwise, project, output, residual)


def _whole(
    expand: ConvBlock | None,
    depthwise: ConvBlock,
    project: ConvBlock,
    output: relax.Var,
    residual: relax.Expr | None,
) -> Iterator[Found]:
    source = expand.input if expand else depthwise.input
    if residual is not None and not (
        residual.same_as(source) and shape_of(source) == shape_of(project.output)
    ):  # an addition may stretch one of two shapes
        return
    block = InvertedResidual(
        expand.cin if expand else depthwise.cin, depthwise.cout, project.cout, *plane_of(source),
        depthwise.kernel, depthwise.stride, depthwise.dilation, expand is not None,
        residual is not None, depthwise.act,
    )  # fmt: skip
    weights = {
        "expand": expand.weights if expand else None, "depthwise": depthwise.weights,
        "project": project.weights,
    }  # fmt: skip
    inner = (*project.inner, project.input, *depthwise.inner)
    if residual is not None:
        inner = (project.output, *inner)
    if expand is not None:
        inner = (*inner, depthwise.input, *expand.inner)
    layers = {"depthwise": depthwise.input, "project": project.input}
    if expand is not None:
        layers = {"expand": expand.input, **layers}
    yield Found(block, [source], output, inner, weights, layers)


def _expansion(graph: Graph, depthwise: ConvBlock) -> ConvBlock | None:
    if not graph.used_once(depthwise.input):
        return None
    expand = conv_block(graph, depthwise.input)
    fits = expand is not None and expand.pointwise and expand.act == depthwise.act
    return expand if fits else None
