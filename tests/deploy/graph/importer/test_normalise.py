"""Norms of groups of channels of a map, as exporters write them: kernels of ours do the most."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.deploy.graph.nets import RNG, TARGETS, Net, kernels_of, max_error, operations_of

C, H, W = 32, 12, 20


def drawn(net, *shape):
    return net._weight(RNG.normal(1, 0.5, shape).astype(np.float32))


def as_one_operator(net, groups):
    """Shape inference does not know what it gives: the output says it."""
    parameters = [drawn(net, groups), drawn(net, groups)]  # opset 18: one for each group
    model = net.model(net.conv("x", C))
    node = helper.make_node(
        "GroupNormalization", [model.graph.output[0].name, *parameters], ["y"],
        num_groups=groups, epsilon=1e-4,
    )  # fmt: skip
    model.graph.node.append(node)
    given = helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, C, H, W))
    model.graph.output[0].CopyFrom(given)
    return model


def as_an_instance_norm(net, groups):
    """torch's exporters before opset 18, and its newer one."""
    x = net.conv("x", C)
    there, back = (net._weight(np.array(s, np.int64)) for s in ((1, groups, -1), (1, C, H, W)))
    ones, zeros = (net._weight(np.full(groups, v, np.float32)) for v in (1, 0))
    grouped = net._node("Reshape", [x, there], groups)
    normal = net._node("InstanceNormalization", [grouped, ones, zeros], groups, epsilon=1e-4)
    normal = net._node("Reshape", [normal, back], C)
    scaled = net.add(net.multiply(normal, drawn(net, C, 1, 1)), drawn(net, C, 1, 1))
    return net.model(net.node("Relu", [scaled]))


@pytest.mark.parametrize("write", [as_one_operator, as_an_instance_norm])
@pytest.mark.parametrize("groups", [1, 8, 32])
def test_group_norm(write, groups):
    model = write(Net(4, H, W), groups)
    assert max_error(model, TARGETS[0]) < 1e-4
    kernels = kernels_of(model, TARGETS[0])
    assert kernels.count("global_mean") == 2
    # What is left to TVM has a number a channel.
    assert kernels.count("elementwise") + kernels.count("pointwise") >= 3, kernels
    assert "relax.subtract" not in operations_of(model, TARGETS[0])


def test_instance_norm_of_a_map():
    net = Net(4, H, W)
    parameters = drawn(net, C), drawn(net, C)
    model = net.model(net._node("InstanceNormalization", [net.conv("x", C), *parameters], C))
    assert max_error(model, TARGETS[0]) < 1e-4
    assert kernels_of(model, TARGETS[0]).count("global_mean") == 2


def test_other_shapes_are_normalised_too():
    """Tokens, and channels that do not fill the groups that a reshape cuts."""
    net = Net(4, H, W)
    shape = net._weight(np.array((1, 5, -1), np.int64))
    back = net._weight(np.array((1, C, H, W), np.int64))
    ones, zeros = (net._weight(np.full(5, v, np.float32)) for v in (1, 0))
    x = net._node("Reshape", [net.conv("x", C), shape], 5)
    x = net._node("InstanceNormalization", [x, ones, zeros], 5)
    assert max_error(net.model(net._node("Reshape", [x, back], C)), TARGETS[0]) < 1e-4
