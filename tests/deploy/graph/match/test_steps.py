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


def softplus_tanh(net: Net, x: str) -> str:
    return net.multiply(x, net.node("Tanh", [net.node("Softplus", [x])]))


@pytest.mark.parametrize(
    ("make", "then"),
    [
        (lambda net, x: net.node("HardSigmoid", [x]), ("clip",)),  # the factor goes to the weights
        (lambda net, x: net.node("HardSigmoid", [x], alpha=0.3, beta=0.4), ("clip",)),
        (lambda net, x: net.node("HardSigmoid", [x], alpha=1 / 6, beta=0.5), ("hsigmoid",)),
        (lambda net, x: net.node("Clip", [x, net.number(0), net.number(1)]), ("clip",)),
        (lambda net, x: net.node("Clip", [x, net.number(-1), net.number(1)]), ("clip",)),
        (lambda net, x: net.node("Clip", [x, net.number(0.25)]), ("clip",)),
        (lambda net, x: net.node("Clip", [x, "", net.number(0.25)]), ("clip",)),
        (lambda net, x: net.node("Min", [net.act(x, "relu"), net.number(1)]), ("relu", "clip")),
        (lambda net, x: net._node("Max", [net.number(0.5), x], 20), ("clip",)),
        (lambda net, x: net.node("Elu", [x], alpha=0.5), ("elu",)),
        (lambda net, x: net.node("Selu", [x]), ("elu", "scale")),
        (lambda net, x: net.node("Celu", [x], alpha=2.0), ("elu", "scale")),
        (lambda net, x: net.node("Mish", [x]), ("mish",)),
        (softplus_tanh, ("mish",)),
        (lambda net, x: net.node("Softplus", [x]), ("softplus",)),
    ],
)  # fmt: skip
def test_activations_of_other_numbers(make, then):
    net = Net(16, 5, 7)
    model = net.model(channels(net, make(net, net.conv("x", 20))))
    assert placed(model) == [Conv((16,), 20, 5, 7, then=then)]
    assert max_error(model, TARGETS[0]) < 1e-4


def test_what_is_no_clip():
    """Bounds that are computed."""
    net = Net(16, 5, 7)
    x = net.conv("x", 20)
    model = net.model(net.node("Max", [x, net.conv("x", 20)]))
    assert "clip" not in [step for op in placed(model) for step in getattr(op, "then", ())]
    assert max_error(model, TARGETS[0]) < 1e-4


@pytest.mark.parametrize(
    ("operator", "turned", "then"),
    [
        ("Add", False, ("add_pixel", "relu")),
        ("Add", True, ("add_pixel", "relu")),
        ("Sub", False, ("sub_pixel", "relu")),
        ("Sub", True, ("add_pixel", "relu")),  # the other sign goes to the weights
    ],
)
def test_one_value_a_pixel(operator, turned, then):
    net = Net(16, 5, 7)
    pair = [net.conv("x", 20), net.conv("x", 1)]
    total = net._node(operator, pair[::-1] if turned else pair, 20)
    model = net.model(net.act(total, "relu"))
    assert Conv((16,), 20, 5, 7, then=then) in placed(model)
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
