"""Functions that exporters write out are steps of what is before them."""

import math

import pytest

from lut.ops import Conv
from tests.deploy.graph.nets import TARGETS, Net, max_error, placed

FORMS = ["half last", "half first", "half inside", "scaled root"]


def gelu(net: Net, x: str, form: str) -> str:
    if form == "scaled root":
        inside = net.multiply(x, net.number(1 / math.sqrt(2)))
    else:
        inside = net.node("Div", [x, net.number(math.sqrt(2))])
    gate = net.add(net.node("Erf", [inside]), net.number(1))
    if form == "half first":
        return net.multiply(net._node("Mul", [net.number(0.5), x], 20), gate)
    if form == "half inside":
        return net.multiply(x, net.multiply(gate, net.number(0.5)))
    return net.multiply(net.multiply(x, gate), net.number(0.5))


def gelu_tanh(net: Net, x: str, *, power: bool) -> str:
    cube = net.node("Pow", [x, net.number(3)]) if power else net.multiply(net.multiply(x, x), x)
    inner = net.add(x, net.multiply(cube, net.number(0.044715)))
    inner = net.multiply(inner, net.number(math.sqrt(2 / math.pi)))
    gate = net.add(net.node("Tanh", [inner]), net.number(1))
    return net.multiply(net._node("Mul", [net.number(0.5), x], 20), gate)


def channels(net: Net, y: str) -> str:
    net.channels[y] = 20
    return y


@pytest.mark.parametrize("form", FORMS)
def test_gelu(form):
    net = Net(16, 5, 7)
    y = gelu(net, net.conv("x", 20), form)
    model = net.model(channels(net, y))
    assert placed(model) == [Conv((16,), 20, 5, 7, then=("gelu",))]
    assert max_error(model, TARGETS[0]) < 1e-4


@pytest.mark.parametrize("power", [False, True])
def test_gelu_by_tanh(power):
    net = Net(16, 5, 7)
    model = net.model(channels(net, gelu_tanh(net, net.conv("x", 20), power=power)))
    assert placed(model) == [Conv((16,), 20, 5, 7, then=("gelu_tanh",))]
    assert max_error(model, TARGETS[0]) < 1e-4


def test_nearly_gelu():
    """Another number in the formula, or a value between that something else reads."""
    net = Net(16, 5, 7)
    x = net.conv("x", 20)
    gate = net.add(net.node("Erf", [net.multiply(x, net.number(0.7))]), net.number(1))
    model = net.model(channels(net, net.multiply(net.multiply(x, gate), net.number(0.5))))
    assert "gelu" not in [step for op in placed(model) for step in getattr(op, "then", ())]
    net = Net(16, 5, 7)
    x = net.conv("x", 20)
    y = gelu(net, x, "half last")
    model = net.model(channels(net, net.add(y, x)))
    assert "gelu" not in [step for op in placed(model) for step in getattr(op, "then", ())]
    assert max_error(model, TARGETS[0]) < 1e-4


@pytest.mark.parametrize("target", TARGETS)
def test_a_convolution_of_the_image_adds_a_map(target):
    """The image is planar, the map as kernels write it."""
    net = Net(3, 10, 14)
    channel = net.conv(net.average("x"), 20, act="sigmoid")
    model = net.model(net.act(net.add(net.conv("x", 20, 5), channel), "relu"))
    operation = placed(model)[-1]
    assert isinstance(operation, Conv)
    assert (operation.source, operation.then) == ("float32_nchw", ("add_channel", "relu"))
    assert max_error(model, target) < 1e-4
