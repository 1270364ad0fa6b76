import pytest

from lut.ops import GlobalMean, GlobalPool, Pointwise
from tests.deploy.graph.nets import (
    TARGETS,
    Net,
    gpu_error,
    kernels_of,
    max_error,
    operations_of,
    placed,
    placed_on_a_gpu,
)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("act", ["none", "relu6", "sigmoid"])
def test_with_its_activation(act, target):
    net = Net(20, 10, 14)
    model = net.model(net.conv(net.average("x"), 36, act=act))
    pool = GlobalPool(20, 36, 10, 14, act)
    assert placed(model) == [pool]
    assert placed_on_a_gpu(model) == list(pool.parts())
    assert kernels_of(model, target) == ["pack", "global_pool", "unpack"]
    assert max_error(model, target) < 1e-4


def test_on_a_gpu():
    net = Net(20, 10, 14)
    assert gpu_error(net.model(net.conv(net.average("x"), 36, act="sigmoid"))) < 1e-4


def test_a_mean_that_is_read_elsewhere_is_written():
    net = Net(20, 10, 14)
    mean = net.average("x")
    model = net.model(net.conv(mean, 36), mean)
    expected = [GlobalMean(20, 10, 14), Pointwise(20, 36, 1, 1)]
    assert placed(model) == placed_on_a_gpu(model) == expected
    names = operations_of(model, "x86-64-v3")
    assert (names.count("global_mean"), names.count("relax.mean")) == (1, 0)
    assert max_error(model, "x86-64-v3") < 1e-4


def test_its_convolution_is_not_taken_for_the_local_one():
    """Both addends are 1x1 convolutions; the sum goes to the one that has a map."""
    net = Net(20, 10, 14)
    model = net.model(net.act(net.add(net.conv(net.average("x"), 36), net.conv("x", 36)), "relu"))
    local = Pointwise(20, 36, 10, 14, "relu", "channel")
    assert placed(model) == [GlobalPool(20, 36, 10, 14), local]
    assert max_error(model, "x86-64-v3") < 1e-4
