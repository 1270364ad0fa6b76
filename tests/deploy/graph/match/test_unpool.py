"""Unpooling as `deploy.reading` writes it, through every pass that places kernels."""

import onnx
import pytest
from onnx import helper

from tests.deploy.graph.nets import TARGETS, Net, kernels_of, max_error
from tests.deploy.reading.files import normal_form

C, H, W = 20, 8, 12


def unpooled(kernel: int) -> onnx.ModelProto:
    net = Net(C, H * kernel, W * kernel)
    square = {"kernel_shape": [kernel, kernel], "strides": [kernel, kernel]}
    x = net.conv("x", C)
    net.nodes.append(helper.make_node("MaxPool", [x], ["pooled", "indices"], **square))
    net.channels["pooled"] = C
    y = net.node("MaxUnpool", [net.conv("pooled", C), "indices"], **square)
    return normal_form(net.model(net.act(net.add(y, x), "relu")))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kernel", [2, 3])
def test_it_is_one_kernel(kernel: int, target: str):
    model = unpooled(kernel)
    assert "unpool" in kernels_of(model, target)
    assert max_error(model, target) < 1e-4
