"""Activations, in the forms in which exporters write them."""

import pytest

from deploy.graph.importer import import_graph
from deploy.graph.view import Graph, activation
from lut.ops import Pointwise
from tests.deploy.graph.nets import TARGETS, Net, max_error, placed, placed_on_a_gpu


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


def test_what_is_read_elsewhere_too_is_not_swallowed():
    net = Net(20, 9, 11)
    convolved = net.conv("x", 20)
    model = net.model(net.add(net.act(convolved, "hswish"), convolved))
    assert Pointwise(20, 20, 9, 11) in placed(model)
    assert max_error(model, TARGETS[0]) < 1e-4
