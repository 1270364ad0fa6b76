import pytest

from lut.ops import Depthwise, Elementwise
from tests.deploy.graph.nets import (
    TARGETS,
    Net,
    gpu_error,
    kernels_of,
    max_error,
    placed,
    placed_on_a_gpu,
)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    "options",
    [
        {"act": "relu6"},
        {"kernel": 5, "stride": 2, "act": "relu"},
        {"kernel": 7, "dilation": 4, "bias": False},
        {"act": "sigmoid"},
    ],
    ids=str,
)
def test_with_its_activation(options, target):
    net = Net(20, 19, 23)
    model = net.model(net.depthwise("x", **options))
    expected = Depthwise(20, 19, 23, **{"act": "none", **without_bias(options)})
    assert placed(model) == placed_on_a_gpu(model) == [expected]
    assert kernels_of(model, target) == ["pack", "depthwise", "unpack"]
    assert max_error(model, target) < 1e-4


def without_bias(options):
    return {name: value for name, value in options.items() if name != "bias"}


def test_on_a_gpu():
    net = Net(12, 19, 23)
    model = net.model(net.depthwise("x", 5, stride=2, act="sigmoid"))
    assert gpu_error(model) < 1e-4


def test_an_activated_value_that_is_read_itself_is_written():
    net = Net(16, 9, 11)
    linear = net.depthwise("x")
    model = net.model(net.act(linear, "relu6"), linear)
    expected = [Depthwise(16, 9, 11, act="none"), Elementwise(16, 9, 11, ("relu6",))]
    assert placed(model) == expected
    assert max_error(model, "x86-64-v3") < 1e-4


@pytest.mark.parametrize(
    "options",
    [
        {"kernel": 3},  # dense
        {"kernel": 3, "groups": 4},
        {"kernel": 3, "groups": 16, "pad": 0},
        {"kernel": 3, "groups": 16, "cout": 32},  # two of each channel
    ],
    ids=str,
)
def test_others_are_left_to_other_kernels(options):
    net = Net(16, 9, 11)
    model = net.model(net.conv("x", **{"cout": 16, **options}))
    assert [op.kind for op in placed(model)] == ["conv"]
    assert placed_on_a_gpu(model) == []
    assert max_error(model, "x86-64-v3") < 1e-4
