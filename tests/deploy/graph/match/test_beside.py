"""What is placed beside other kernels alone: steps on a map, and concatenations."""

import numpy as np

from lut.ops import Concat, Depthwise, Elementwise, InvertedResidual
from tests.deploy.graph.nets import Net, kernels_of, max_error, placed, placed_on_a_gpu

TARGET = "x86-64-v3"


def convolved(*channels):
    net = Net(16, 9, 11)
    return net, [net.depthwise(net.conv("x", count)) for count in channels]


def test_a_sum_of_maps_that_are_read_elsewhere():
    net, (a, b) = convolved(20, 20)
    total = net.act(net.add(a, b), "relu")
    model = net.model(total, net.add(total, net.multiply(a, b)))
    kinds = [op for op in placed(model) if isinstance(op, Elementwise)]
    assert Elementwise(20, 9, 11, ("add", "relu")) in kinds
    assert Elementwise(20, 9, 11, ("mul", "add")) in kinds
    assert not [op for op in placed_on_a_gpu(model) if isinstance(op, Elementwise)]
    assert max_error(model, TARGET) < 1e-3


def test_factors_and_shifts_in_a_row_are_one():
    net, (a,) = convolved(20)
    twice = net.act(a, "relu")
    scaled = net._node("Mul", [twice, net._weight(np.full((20, 1, 1), 3, np.float32))], 20)
    shifted = net._node("Add", [scaled, net.number(2)], 20)
    model = net.model(net._node("Sub", [net.number(1), shifted], 20), twice)
    assert placed(model)[-1] == Elementwise(20, 9, 11, ("scale",))
    assert max_error(model, TARGET) < 1e-3


def test_what_an_activation_is_written_with_is_not_placed_besides():
    """A hard swish is a sum, a clip, a quotient and a product, which all read what is placed."""
    net = Net(16, 9, 11)
    deep = net.depthwise(net.conv("x", 48, act="relu6"), act="relu6")
    model = net.model(net.act(net.add(net.conv(deep, 16), "x"), "hswish"))
    block = InvertedResidual(16, 48, 16, 9, 11, residual=True)
    assert placed(model) == [block, Elementwise(16, 9, 11, ("hswish",))]
    assert max_error(model, TARGET) < 1e-3


def test_without_a_kernel_beside_it_nothing_is_placed():
    net = Net(16, 9, 11)
    model = net.model(net.act(net.add("x", "x"), "relu"))
    assert placed(model) == []
    assert max_error(model, TARGET) < 1e-5


def test_a_concatenation_that_no_convolution_reads():
    net, (a, b) = convolved(20, 13)
    both = net._node("Concat", [a, b], 33, axis=1)
    again = net._node("Concat", [both, a], 53, axis=1)
    model = net.model(net.depthwise(again))
    expected = [Concat((20, 13, 20), 9, 11), Depthwise(53, 9, 11, act="none")]
    assert placed(model)[-2:] == expected
    assert kernels_of(model, TARGET)[-3:] == ["concat", "depthwise", "unpack"]
    assert max_error(model, TARGET) < 1e-3
