import numpy as np
import pytest

from deploy.graph.importer import import_graph
from deploy.graph.merge_linear import MergeLinear
from deploy.graph.view import Graph, shape_of
from tests.deploy.graph.nets import TARGETS, Net, max_error, operations_of


def convolutions(model) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """What each reads and its weight's shape, in order."""
    graph = Graph(MergeLinear()(import_graph(model))["main"])
    calls = [graph.call(var, "relax.nn.conv2d") for var in graph.vars]
    return [(shape_of(c.args[0])[1:], shape_of(c.args[1])) for c in calls if c is not None]


def concat(net: Net, *maps: str) -> str:
    y = net.node("Concat", maps, axis=1)
    net.channels[y] = sum(net.channels[x] for x in maps)
    return y


def test_before_an_enlarging_resize():
    net = Net(16, 6, 8)
    model = net.model(net.conv(net.resize(net.act(net.conv("x", 24), "relu"), 24, 32), 5))
    assert convolutions(model) == [((16, 6, 8), (24, 16, 1, 1)), ((24, 6, 8), (5, 24, 1, 1))]
    assert max_error(model, TARGETS[0]) < 1e-4


def test_a_concatenation_of_resizes_is_a_sum():
    """As SegFormer's head has it."""
    net = Net(16, 12, 16)
    x = net.act("x", "relu")
    small = net.conv(x, 32, 3, stride=2, act="relu")
    parts = [net.resize(net.conv(small, 24), 12, 16), net.conv(x, 24), x]
    model = net.model(net.conv(concat(net, *parts), 20, act="relu"))
    assert convolutions(model) == [
        ((16, 12, 16), (32, 16, 3, 3)),
        ((16, 12, 16), (20, 16, 1, 1)),  # both convolutions of x's own size, and the one between
        ((16, 12, 16), (20, 16, 1, 1)),
        ((32, 6, 8), (20, 32, 1, 1)),
    ]
    assert max_error(model, TARGETS[0]) < 2e-4


@pytest.mark.parametrize(("middle", "merged"), [(40, True), (4, False)])
def test_into_the_convolution_before(middle, merged):
    """Not where the map between is a bottleneck."""
    net = Net(16, 9, 11)
    model = net.model(net.conv(net.conv("x", middle, 3), 20))
    assert len(convolutions(model)) == (1 if merged else 2)
    assert max_error(model, TARGETS[0]) < 2e-4


@pytest.mark.parametrize("swap", [False, True])
def test_factors(swap):
    net = Net(16, 9, 11)
    factor = net._weight(np.linspace(0.5, 2, 20, dtype=np.float32).reshape(20, 1, 1))
    y = net.conv("x", 20, 3)
    net.channels[factor] = 20
    y = net.multiply(factor, y) if swap else net.multiply(y, factor)
    model = net.model(net.act(y, "relu"))
    graph = Graph(MergeLinear()(import_graph(model))["main"])
    assert not [var for var in graph.vars if graph.call(var, "relax.multiply") is not None]
    assert max_error(model, TARGETS[0]) < 1e-4


def test_a_factor_of_an_activation_stays_with_it():
    net = Net(16, 9, 11)
    model = net.model(net.node("HardSigmoid", [net.conv("x", 20)], alpha=1 / 6, beta=0.5))
    assert operations_of(model, TARGETS[0]) == ["pack", "conv", "unpack"]
    assert max_error(model, TARGETS[0]) < 1e-4


def test_what_is_left():
    """An activation between, a map that is read elsewhere, a resize to fewer pixels."""
    net = Net(16, 12, 16)
    wide = net.conv("x", 40)
    model = net.model(net.conv(net.act(wide, "relu"), 8))
    assert len(convolutions(model)) == 2
    net = Net(16, 12, 16)
    wide = net.conv("x", 40)
    model = net.model(concat(net, net.conv(wide, 8), wide))
    assert len(convolutions(model)) == 2
    net = Net(16, 12, 16)
    small = net.resize(net.act("x", "relu"), 6, 8)
    model = net.model(net.act(net.conv(small, 40), "relu"))
    assert convolutions(model) == [((16, 6, 8), (40, 16, 1, 1))]
