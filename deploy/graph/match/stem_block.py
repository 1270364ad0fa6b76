"""The stem and the block behind it, as every MobileNetV2 begins."""

from collections.abc import Iterator

from tvm import relax

from deploy.graph.match.found import Found
from deploy.graph.match.stem import image_source, is_stem
from deploy.graph.view import Graph, conv_block, plane_of
from lut.ops import StemBlock


def match_stem_block(graph: Graph, var: relax.Var) -> Iterator[Found]:
    """``[image end ->] 3x3 convolution at stride 2, act -> depthwise, act -> 1x1 convolution``.

    When: nothing else reads what lies between, and no activation follows.
    """
    project = conv_block(graph, var)
    if project is None or project.act != "none" or graph.before_activation(var):
        return
    if not project.pointwise or not graph.used_once(project.input):
        return
    depthwise = conv_block(graph, project.input)
    if depthwise is None or not depthwise.depthwise:
        return
    first = conv_block(graph, depthwise.input)
    if first is None or not is_stem(first) or not graph.used_once(depthwise.input):
        return
    source = image_source(graph, first)
    block = StemBlock(
        first.cout, project.cout, *plane_of(first.input), depthwise.kernel, depthwise.stride,
        depthwise.dilation, source.layout, first.act, depthwise.act,
    )  # fmt: skip
    weights = {
        "first": first.weights, "depthwise": depthwise.weights, "project": project.weights,
        **source.normalisation,
    }  # fmt: skip
    inner = (
        *project.inner, project.input, *depthwise.inner, depthwise.input, *first.inner,
    )  # fmt: skip
    layers = {"first": first.input, "depthwise": depthwise.input, "project": project.input}
    yield Found(block, [source.tensor], var, inner, weights, layers)
