import numpy as np
import pytest

from lut.ops import AcrossChannels, Pointwise, Pool
from tests.deploy.graph.nets import Net, kernels_of, max_error, placed, placed_on_a_gpu

TARGET = "x86-64-v3"
WINDOWS = {
    "2x2": ({"kernel_shape": [2, 2], "strides": [2, 2]}, Pool(20, 9, 11, (2, 2), (2, 2))),
    "ceil": (
        {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1},
        Pool(20, 9, 11, (2, 2), (2, 2), pad=(0, 0, 1, 1)),
    ),
    "one side": (
        {"kernel_shape": [3, 2], "strides": [1, 3], "pads": [1, 0, 0, 1]},
        Pool(20, 9, 11, (3, 2), (1, 3), pad=(1, 0, 0, 0)),
    ),
}


def pooled(op, **attributes):
    net = Net(20, 9, 11)
    return net, net.node(op, ["x"], **attributes)


@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.parametrize(
    ("operator", "reduce"), [("MaxPool", "max"), ("AveragePool", "mean")], ids=["max", "mean"]
)
def test_windows(name, operator, reduce):
    attributes, expected = WINDOWS[name]
    net, y = pooled(operator, **attributes)
    model = net.model(net.act(y, "relu6"))
    assert placed(model) == [Pool(**{**vars(expected), "reduce": reduce, "then": ("relu6",)})]
    assert placed_on_a_gpu(model) == []
    assert kernels_of(model, TARGET) == ["pack", "pool", "unpack"]
    assert max_error(model, TARGET) < 1e-5


def test_padding_that_counts():
    window = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4}
    net, y = pooled("AveragePool", **window, count_include_pad=1)
    model = net.model(y)
    (pool,) = placed(model)
    assert pool.reduce == "mean_padded"
    assert max_error(model, TARGET) < 1e-5


def test_what_reaches_behind_padding_that_counts_is_left_to_tvm():
    window = {"kernel_shape": [4, 4], "strides": [2, 2], "pads": [1] * 4, "ceil_mode": 1}
    net, y = pooled("AveragePool", **window, count_include_pad=1)
    model = net.model(y)
    assert placed(model) == []
    assert max_error(model, TARGET) < 1e-5


def test_dilated():
    net, y = pooled("MaxPool", kernel_shape=[2, 3], dilations=[2, 3], pads=[1, 2, 1, 2])
    model = net.model(y)
    assert placed(model) == [Pool(20, 9, 11, (2, 3), (1, 1), (2, 3), (1, 2, 1, 2))]
    assert max_error(model, TARGET) < 1e-5


@pytest.mark.parametrize("operator", ["ReduceMean", "ReduceMax"])
@pytest.mark.parametrize(("axis", "kernel"), [(2, (9, 1)), (3, (1, 11))])
def test_whole_rows_and_columns(operator, axis, kernel):
    net = Net(20, 9, 11)
    y = net._node(operator, ["x", net._weight(np.array([axis], np.int64))], 20)
    reduce = "max" if operator == "ReduceMax" else "mean"
    assert placed(net.model(y)) == [Pool(20, 9, 11, kernel, reduce=reduce)]
    assert max_error(net.model(y), TARGET) < 1e-5


def test_the_largest_of_the_whole_map():
    net = Net(20, 9, 11)
    model = net.model(net.node("GlobalMaxPool", ["x"]))
    assert placed(model) == [Pool(20, 9, 11, (9, 11))]
    assert max_error(model, TARGET) < 1e-5


@pytest.mark.parametrize("operator", ["ReduceMean", "ReduceMax", "ReduceSum"])
def test_across_channels_beside_another_kernel(operator):
    net = Net(20, 9, 11)
    one = net._weight(np.array([1], np.int64))
    alone = net.model(net._node(operator, ["x", one], 1))
    assert placed(alone) == []
    model = net.model(net._node(operator, [net.conv("x", 24), one], 1))
    reduce = operator.removeprefix("Reduce").lower()
    assert placed(model) == [Pointwise(20, 24, 9, 11), AcrossChannels(24, 9, 11, reduce)]
    assert max_error(model, TARGET) < 1e-4
