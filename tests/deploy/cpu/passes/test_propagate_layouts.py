"""Elementwise operators and concatenations between our kernels."""

import numpy as np
import pytest

from tests.deploy.graph.nets import (
    TARGETS,
    Net,
    kernels_of,
    max_error,
    noise,
    operations_of,
    reference,
)


def between(operator, *, channels=20, size=(9, 11)):
    """1x1 convolution, an operator, another convolution."""
    net = Net(16, *size)
    y = net.conv("x", channels)
    return net.model(net.conv(operator(net, y), 12))


def relative_error(model):
    x = noise(model)
    (expected,) = reference(model, x)
    return max_error(model, "x86-64-v3", x) / float(np.abs(expected).max())


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
    return net.multiply(x, net.average(x))


def powers_and_roots(net, x):
    root = net._node("Sqrt", [net._node("Abs", [x], net.channels[x])], net.channels[x])
    return net._node("Div", [x, net._node("Exp", [root], net.channels[x])], net.channels[x])


def exponential(net, x):
    return net.node("Exp", [net.node("Neg", [net.node("Abs", [x])])])


STEPS = [clipped_gate, silu, per_channel_constant, one_value, by_its_average, by_a_plain_average]
LEFT = [exponential, powers_and_roots]  # to TVM


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("operator", [*STEPS, *LEFT], ids=lambda f: f.__name__)
def test_no_conversion_around_elementwise_operators(operator, target):
    model = between(operator)
    operations = operations_of(model, target)
    assert operations[0] == "pack"
    assert operations[-1] == "unpack"
    assert not {"pack", "unpack"} & set(operations[1:-1])
    assert any(name.startswith("relax.") for name in operations) == (operator in LEFT)
    assert max_error(model, target) < 2e-4


def test_a_factor_that_tvm_computed_is_packed_alone():
    """The operator between is none that a kernel takes as a step."""
    net = Net(16, 9, 11)
    y = net.conv("x", 20)
    factor = net.node("Softmax", [net.average(y)], axis=1)
    model = net.model(net.conv(net.node("Div", [net.node("Exp", [y]), factor]), 12))
    operations = operations_of(model, "x86-64-v3")
    assert operations == [
        "pack", "pointwise", "global_mean", "unpack", "relax.exp", "relax.nn.softmax", "pack",
        "relax.divide", "pointwise", "unpack",
    ]  # fmt: skip
    assert relative_error(model) < 1e-5


@pytest.mark.parametrize("target", TARGETS)
def test_two_maps(target):
    net = Net(16, 9, 11)
    a, b = net.conv("x", 20), net.resize(net.conv(net.resize("x", 4, 5), 20), 9, 11)
    y = net.multiply(net.act(a, "relu"), b)
    model = net.model(net.conv(net._node("Sub", [y, a], 20), 12))
    assert operations_of(model, target).count("unpack") == 1
    assert max_error(model, target) < 2e-4


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("channels", [(16, 32, 16), (32, 16, 10), (16, 20, 16)], ids=str)
def test_a_concatenation_is_read_where_it_is(channels, target):
    net = Net(16, 9, 11)
    joined = concatenated(net, [net.conv("x", c, act="relu") for c in channels])
    model = net.model(net.conv(joined, 12))
    assert operations_of(model, target) == ["pack", *["pointwise"] * 3, "conv", "unpack"]
    assert max_error(model, target) < 2e-4


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("channels", "blocked"),
    [((16, 32, 16), True), ((32, 16, 10), True), ((16, 20, 16), False)],
    ids=str,
)
def test_concatenation_of_what_tvm_computed(channels, blocked, target):
    """Parts are joined as blocks where each but the last is a whole number of them. (Abs: of
    exponentials LLVM makes machine code for 20 s.)"""
    net = Net(16, 9, 11)
    joined = concatenated(net, [net.node("Abs", [net.conv("x", c)]) for c in channels])
    model = net.model(net.act(net.node("Neg", [joined]), "sigmoid"))
    between = 0 if blocked else len(channels) - 1
    assert kernels_of(model, target).count("unpack") == 1 + between
    assert max_error(model, target) < 2e-4


def concatenated(net, parts):
    return net._node("Concat", parts, sum(net.channels[part] for part in parts), axis=1)


def test_a_map_that_tvm_computed_stays_planar():
    net = Net(16, 9, 11)
    soft = net.node("Softmax", [net.conv("x", 20)], axis=1)
    model = net.model(net.conv(net.node("Div", [net.conv("x", 20), soft]), 12))
    operations = operations_of(model, "x86-64-v3")
    assert operations.index("unpack") < operations.index("relax.divide")
    assert operations[operations.index("relax.divide") + 1] == "pack"
    assert relative_error(model) < 1e-5


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
