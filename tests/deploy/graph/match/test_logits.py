import pytest

from lut.ops import Logits, Pointwise, Resize
from tests.deploy.graph.nets import (
    TARGETS,
    Net,
    gpu_error,
    kernels_of,
    max_error,
    placed,
    placed_on_a_gpu,
)


def network(size):
    """Scores of a 1x1 convolution, resized."""
    net = Net(16, 8, 12)
    return net, net.resize(net.conv("x", 19), *size)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("size", [(64, 96), (61, 97), (8, 12), (5, 7)])
def test_the_result(size, target):
    net, logits = network(size)
    model = net.model(logits)
    assert placed(model) == [Pointwise(16, 19, 8, 12), Logits(19, 8, 12, *size)]
    assert kernels_of(model, target) == ["pack", "pointwise", "logits_end"]
    assert max_error(model, target) < 1e-4


def test_a_gpu_resizes():
    net, logits = network((61, 97))
    model = net.model(logits)
    assert placed_on_a_gpu(model)[-1:] == [Resize(19, 8, 12, 61, 97)]
    assert gpu_error(model) < 1e-4


def test_a_result_that_is_read_elsewhere():
    net, logits = network((16, 24))
    model = net.model(logits, net.depthwise(logits, act="relu6"))
    assert Logits(19, 8, 12, 16, 24) in placed(model)
    assert max_error(model, "x86-64-v3") < 1e-4


def test_what_is_no_result_is_a_resize():
    net, logits = network((16, 24))
    model = net.model(net.depthwise(logits))
    assert [op.kind for op in placed(model)] == ["pointwise", "resize", "depthwise"]
