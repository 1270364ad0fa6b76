"""Elementwise operators and concatenations between our kernels."""

import numpy as np
import pytest

from tests.deploy.graph.nets import TARGETS, Net, kernels_of, max_error, operations_of


def between(operator, *, channels=20, size=(9, 11)):
    """1x1 convolution, an operator, another convolution."""
    net = Net(16, *size)
    y = net.conv("x", channels)
    return net.model(net.conv(operator(net, y), 12))


def constant(net, shape, low=0.5, high=2.0):
    return net._weight(np.random.default_rng(1).uniform(low, high, shape).astype(np.float32))


def clipped_gate(net, x):
    """As hard-swish, which is an activation of the convolution itself, with another shift."""
    channels = net.channels[x]
    two, zero, six = (net._weight(np.array(v, np.float32)) for v in (2, 0, 6))
    y = net._node("Clip", [net._node("Add", [x, two], channels), zero, six], channels)
    return net._node("Mul", [x, net._node("Div", [y, six], channels)], channels)


def silu(net, x):
    return net.multiply(net.sigmoid(x), x)


def per_channel_constant(net, x):
    return net.multiply(x, constant(net, (1, net.channels[x], 1, 1)))


def one_value(net, x):
    return net._node("Sub", [constant(net, (1, 1, 1, 1)), x], net.channels[x])


def by_its_average(net, x):
    return net.multiply(x, net.sigmoid(net.conv(net.average(x), net.channels[x])))


def by_a_plain_average(net, x):
    """The factor comes from an operator of TVM's: one value per channel, packed."""
    return net.multiply(x, net.average(x))


def powers_and_roots(net, x):
    root = net._node("Sqrt", [net._node("Abs", [x], net.channels[x])], net.channels[x])
    return net._node("Div", [x, net._node("Exp", [root], net.channels[x])], net.channels[x])


ALONE = [clipped_gate, silu, per_channel_constant, one_value, by_its_average, powers_and_roots]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("operator", ALONE, ids=lambda f: f.__name__)
def test_no_conversion_around_elementwise_operators(operator, target):
    model = between(operator)
    kernels = kernels_of(model, target)
    assert kernels[0] == "pack"
    assert kernels[-1] == "unpack"
    assert not {"pack", "unpack"} & set(kernels[1:-1])
    assert any(name.startswith("relax.") for name in operations_of(model, target))
    assert max_error(model, target) < 2e-4


def test_a_factor_that_tvm_computed_is_packed_alone():
    model = between(by_a_plain_average)
    assert operations_of(model, "x86-64-v3") == [
        "pack", "pointwise", "unpack", "relax.mean", "pack", "relax.multiply",
        "pointwise", "unpack",
    ]  # fmt: skip
    assert max_error(model, "x86-64-v3") < 1e-4


@pytest.mark.parametrize("target", TARGETS)
def test_two_maps(target):
    net = Net(16, 9, 11)
    a, b = net.conv("x", 20), net.resize(net.conv(net.resize("x", 4, 5), 20), 9, 11)
    y = net.multiply(net.act(a, "relu"), b)
    model = net.model(net.conv(net._node("Sub", [y, a], 20), 12))
    assert operations_of(model, target).count("unpack") == 1
    assert max_error(model, target) < 2e-4


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("channels", "blocked"),
    [((16, 32, 16), True), ((32, 16, 10), True), ((16, 20, 16), False)],
    ids=str,
)
def test_concatenation(channels, blocked, target):
    """Parts are joined as blocks where each but the last is a whole number of them."""
    net = Net(16, 9, 11)
    parts = [net.conv("x", c, act="relu") for c in channels]
    joined = net._node("Concat", parts, sum(channels), axis=1)
    model = net.model(net.conv(joined, 12))
    between = 0 if blocked else len(channels)
    assert kernels_of(model, target).count("unpack") == 1 + between
    assert max_error(model, target) < 2e-4


def test_a_map_that_tvm_computed_stays_planar():
    net = Net(16, 9, 11)
    dense = net.conv("x", 20, 3)
    model = net.model(net.conv(net.multiply(net.conv("x", 20), dense), 12))
    operations = operations_of(model, "x86-64-v3")
    assert operations.index("unpack") < operations.index("relax.multiply")
    assert operations[operations.index("relax.multiply") + 1] == "pack"
    assert max_error(model, "x86-64-v3") < 2e-4


def test_what_an_operator_makes_of_the_padding_reaches_no_output():
    """log(0) and 0/0 in the padding channels: 12 channels, of which no block is whole."""
    net = Net(16, 9, 11)
    y = net._node("Exp", [net.conv("x", 12)], 12)
    y = net._node("Log", [net._node("Div", [y, y], 12)], 12)
    y = net.depthwise(net.add(y, net.conv("x", 12)), act="relu6")
    model = net.model(net.conv(net.multiply(y, net.sigmoid(net.conv(net.average(y), 12))), 10))
    assert operations_of(model, "x86-64-v3").count("unpack") == 1
    assert max_error(model, "x86-64-v3") < 2e-4
    assert np.isfinite(max_error(model, "x86-64-v4"))


def test_operators_over_other_axes_are_left_planar():
    net = Net(16, 9, 11)
    model = net.model(net._node("Softmax", [net.conv("x", 20)], 20, axis=1))
    assert operations_of(model, "x86-64-v3") == ["pack", "pointwise", "unpack", "relax.nn.softmax"]
    assert max_error(model, "x86-64-v3") < 1e-4
