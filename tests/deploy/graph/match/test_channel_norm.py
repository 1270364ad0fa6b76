import numpy as np
import pytest

from lut.ops import ChannelNorm
from tests.deploy.graph.nets import TARGETS, Net, kernels_of, max_error, placed


def written_out(net: Net, x: str, square: str, *, inverse: bool = False) -> str:
    """As exporters write layer norm before opset 17, and networks by themselves."""
    axes = net._weight(np.array([1]))
    centred = net.node("Sub", [x, net.node("ReduceMean", [x, axes], keepdims=1)])
    if square == "Pow":
        squares = net.node("Pow", [centred, net.number(2)])
    else:
        squares = net.multiply(centred, centred)
    variance = net.node("ReduceMean", [squares, axes], keepdims=1)
    root = net.node("Sqrt", [net.add(variance, net.number(1e-5))])
    if inverse:
        return net.multiply(centred, net.node("Reciprocal", [root]))
    return net.node("Div", [centred, root])


@pytest.mark.parametrize("square", ["Pow", "Mul"])
@pytest.mark.parametrize("target", TARGETS)
def test_written_out(square, target):
    net = Net(20, 9, 11)
    y = written_out(net, net.conv("x", 24), square)
    model = net.model(net.act(net.add(net.multiply(y, net.number(3)), net.number(1)), "relu"))
    assert placed(model)[-1] == ChannelNorm(24, 9, 11, ("scale", "relu"))
    assert kernels_of(model, target) == ["pack", "pointwise", "channel_norm", "unpack"]
    assert max_error(model, target) < 1e-4


def test_values_between_that_are_read_elsewhere_stay():
    net = Net(20, 9, 11)
    x = net.conv("x", 24)
    y = written_out(net, x, "Mul")
    centred = next(node.output[0] for node in net.nodes if node.op_type == "Sub")
    net.channels[centred] = 24
    model = net.model(net.add(y, centred))
    assert not [op for op in placed(model) if isinstance(op, ChannelNorm)]
    assert max_error(model, TARGETS[0]) < 1e-4
