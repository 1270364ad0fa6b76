import numpy as np
import pytest
import tvm
from tvm import relax

from deploy.graph.importer import import_graph
from deploy.graph.view import (
    Graph,
    activation,
    bilinear_resize,
    conv_block,
    global_average,
    sum_of,
)
from lut.ops import Conv, Pointwise
from tests.deploy.graph.nets import TARGETS, Net, max_error, placed, placed_on_a_gpu


def graph_of(net, *outputs):
    return Graph(import_graph(net.model(*outputs))["main"])


def convolutions(graph):
    return [var for var in graph.vars if graph.call(var, "relax.nn.conv2d") is not None]


def biased(graph, conv):
    """What its bias makes of a convolution."""
    (found,) = [var for var in graph.vars if conv in [a for a, _ in sums(graph, var)]]
    return found


def sums(graph, var):
    add = graph.call(var, "relax.add")
    return [] if add is None else [tuple(add.args)]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("act", ["relu", "relu6", "sigmoid"])
def test_a_convolution_before_an_activation(act, bias):
    """With its bias and before it is added: neither is an operation by itself."""
    net = Net(16, 9, 11)
    graph = graph_of(net, net.conv("x", 24, act=act, bias=bias))
    (conv,) = convolutions(graph)
    assert graph.before_activation(conv)
    assert not bias or graph.before_activation(biased(graph, conv))
    assert not graph.before_activation(graph.vars[-1])
    assert conv_block(graph, graph.vars[-1]).act == act


def test_what_is_read_elsewhere_too_is_not_before_an_activation():
    net = Net(16, 9, 11)
    linear = net.conv("x", 24)
    graph = graph_of(net, net.act(linear, "relu"), linear)
    (conv,) = convolutions(graph)
    assert not graph.before_activation(conv)
    assert not graph.before_activation(biased(graph, conv))


def test_an_activated_sum_is_no_convolution():
    net = Net(16, 9, 11)
    graph = graph_of(net, net.act(net.add(net.conv("x", 16), "x"), "relu"))
    assert not [var for var in graph.vars if graph.before_activation(var)]


def test_uses_are_counted_one_by_one():
    net = Net(16, 9, 11)
    y = net.act("x", "relu")
    graph = graph_of(net, net.add(y, y))
    relu, total = graph.vars
    assert not graph.used_once(relu)
    assert graph.used_once(total)
    assert graph.is_result(total)
    assert not graph.is_result(relu)
    assert [[a.same_as(relu), b.same_as(relu)] for a, b in sum_of(graph, total)] == [[True] * 2] * 2


def test_a_bias_is_the_constant_behind_its_reshape():
    net = Net(16, 9, 11)
    graph = graph_of(net, net.conv("x", 24))
    block = conv_block(graph, graph.vars[-1])
    np.testing.assert_array_equal(block.bias, net.weights["w1"])
    np.testing.assert_array_equal(block.weight, net.weights["w0"])
    assert (block.cin, block.cout, block.pointwise, block.depthwise) == (16, 24, True, False)
    assert block.inner == tuple(convolutions(graph))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (relax.op.nn.relu, "relu"),
        (relax.op.nn.relu6, "relu6"),
        (relax.op.sigmoid, "sigmoid"),
        (lambda x: relax.op.clip(x, 0, 6), "relu6"),
        (lambda x: relax.op.clip(x, 0, float("inf")), "relu"),
        (lambda x: relax.op.clip(x, 0, 1), "none"),
        (lambda x: relax.op.clip(x, -6, 6), "none"),
        (relax.op.tanh, "none"),
    ],
)
def test_activations(make, expected):
    graph, x = built(make)
    act, value = activation(graph, graph.vars[0])
    assert act == expected
    assert value.same_as(x if act != "none" else graph.vars[0])


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda x: relax.op.mean(x, [2, 3], keepdims=True), True),
        (lambda x: relax.op.mean(x, [-1, -2], keepdims=True), True),
        (lambda x: relax.op.mean(x, [2, 3]), False),
        (lambda x: relax.op.mean(x, [1], keepdims=True), False),
        (lambda x: relax.op.mean(x), False),
        (lambda x: relax.op.nn.adaptive_avg_pool2d(x, (1, 1)), True),
        (lambda x: relax.op.nn.adaptive_avg_pool2d(x, (2, 2)), False),
    ],
)
def test_global_averages(make, found):
    graph, x = built(make)
    source = global_average(graph, graph.vars[0])
    assert source.same_as(x) if found else source is None


@pytest.mark.parametrize("batch", [1, 2])
def test_of_several_maps_nothing_is_found(batch):
    """The kernels have one."""

    def resize(x):
        return relax.op.image.resize2d(
            x, (8, 12), layout="NCHW", method="linear",
            coordinate_transformation_mode="half_pixel",
        )  # fmt: skip

    for make, find in (
        (resize, bilinear_resize),
        (lambda x: relax.op.mean(x, [2, 3], keepdims=True), global_average),
        (lambda x: relax.op.nn.adaptive_avg_pool2d(x, (1, 1)), global_average),
    ):
        graph, x = built(make, batch)
        source = find(graph, graph.vars[0])
        assert source.same_as(x) if batch == 1 else source is None


def built(make, batch=1):
    """A function of one operator, which need not be one that ONNX has, and its parameter."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((batch, 8, 4, 6), "float32"))
    with builder.function("main", [x]):
        with builder.dataflow():
            result = builder.emit_output(make(x))
        builder.emit_func_output(result)
    return Graph(builder.get()["main"]), x


def test_constants():
    value = np.arange(6, dtype=np.float32)
    net = Net(16, 9, 11)
    graph = graph_of(net, net.conv("x", 24))
    assert graph.constant(graph.vars[0]) is None
    np.testing.assert_array_equal(graph.constant(relax.const(value)), value)
    assert isinstance(relax.const(value), tvm.ir.GenericConst)


def relu6_of_x_plus_3(net: Net, x: str) -> str:
    shifted = net.node("Add", [x, net.number(3)])
    return net.node("Clip", [shifted, net.number(0), net.number(6)])


def divided_at_the_end(net: Net, x: str) -> str:
    product = net.node("Mul", [x, relu6_of_x_plus_3(net, x)])
    return net.node("Div", [product, net.number(6)])


def divided_before(net: Net, x: str) -> str:
    return net.node("Mul", [net.node("Div", [relu6_of_x_plus_3(net, x), net.number(6)]), x])


def by_hard_sigmoid(net: Net, x: str) -> str:
    return net.node("Mul", [x, net.node("HardSigmoid", [x], alpha=1 / 6, beta=0.5)])


FORMS = [lambda net, x: net.act(x, "hswish"), divided_at_the_end, divided_before, by_hard_sigmoid]
NAMES = ["operator", "divided at the end", "divided before", "by HardSigmoid"]


@pytest.mark.parametrize("form", FORMS, ids=NAMES)
def test_hard_swish(form):
    net = Net(20, 9, 11)
    convolved = net.conv("x", 30)
    model = net.model(form(net, convolved))
    assert placed(model) == placed_on_a_gpu(model) == [Pointwise(20, 30, 9, 11, "hswish")]
    assert max(max_error(model, target) for target in TARGETS) < 1e-4


@pytest.mark.parametrize("sixth", [1 / 5, 1 / 6])
def test_other_numbers_are_no_hard_swish(sixth):
    net = Net(20, 9, 11)
    convolved = net.conv("x", 30)
    gate = net.node("HardSigmoid", [convolved], alpha=sixth, beta=0.5)
    graph = Graph(import_graph(net.model(net.node("Mul", [convolved, gate])))["main"])
    found = {activation(graph, var)[0] for var in graph.vars}
    assert ("hswish" in found) == (sixth == 1 / 6)


def test_a_sixth_of_a_hard_swish_is_none():
    """But a step more."""
    net = Net(20, 9, 11)
    convolved = net.conv("x", 30)
    model = net.model(net.node("Div", [by_hard_sigmoid(net, convolved), net.number(6)]))
    assert placed(model) == [Conv((20,), 30, 9, 11, then=("hswish", "scale"))]
    assert placed_on_a_gpu(model) == [Pointwise(20, 30, 9, 11, "hswish")]  # what is divided
    assert max_error(model, TARGETS[0]) < 1e-4


@pytest.mark.parametrize("form", FORMS[1:], ids=NAMES[1:])
def test_steps_of_a_hard_swish_that_are_read_elsewhere(form):
    """Each in its turn; as one operation it would be computed twice."""
    for step in ("Add", "Clip", "HardSigmoid", "Div"):
        net = Net(20, 9, 11)
        y = form(net, net.conv("x", 20))
        steps = [node.output[0] for node in net.nodes if node.op_type == step]
        if steps and steps != [y]:
            model = net.model(y, net.depthwise(steps[0]))
            assert placed(model)[0] == Pointwise(20, 20, 9, 11)
            assert max_error(model, TARGETS[0]) < 1e-4


def test_what_is_read_elsewhere_too_is_not_swallowed():
    net = Net(20, 9, 11)
    convolved = net.conv("x", 20)
    model = net.model(net.add(net.act(convolved, "hswish"), convolved))
    assert Pointwise(20, 20, 9, 11) in placed(model)
    assert max_error(model, TARGETS[0]) < 1e-4
