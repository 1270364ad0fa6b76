import numpy as np
import pytest

from lut.ops import GlobalMean
from tests.deploy.graph.nets import (
    TARGETS,
    Net,
    gpu_error,
    kernels_of,
    max_error,
    placed,
    placed_on_a_gpu,
)


def reduced(axes, keepdims=1):
    net = Net(20, 9, 11)
    indices = net._weight(np.array(axes, np.int64))
    channels = 1 if 1 in axes else 20
    return net.model(net._node("ReduceMean", ["x", indices], channels, keepdims=keepdims))


@pytest.mark.parametrize("axes", [(2, 3), (-1, -2)])
def test_over_rows_and_columns(axes):
    model = reduced(axes)
    assert placed_on_a_gpu(model) == [GlobalMean(20, 9, 11)]
    assert gpu_error(model) < 1e-5


def test_of_a_pooling_operator():
    net = Net(20, 9, 11)
    model = net.model(net.average("x"))
    assert placed_on_a_gpu(model) == [GlobalMean(20, 9, 11)]
    assert gpu_error(model) < 1e-5


@pytest.mark.parametrize("target", TARGETS)
def test_on_a_cpu(target):
    net = Net(20, 9, 11)
    model = net.model(net.average("x"))
    assert placed(model) == [GlobalMean(20, 9, 11)]
    assert kernels_of(model, target) == ["pack", "global_mean", "unpack"]
    assert max_error(model, target) < 1e-5


@pytest.mark.parametrize(("axes", "keepdims"), [((1,), 1), ((1, 2, 3), 1), ((2, 3), 0)], ids=str)
def test_other_means_are_left_to_tvm(axes, keepdims):
    model = reduced(axes, keepdims)
    assert placed(model) == placed_on_a_gpu(model) == []
    assert max_error(model, "x86-64-v3") < 1e-5
