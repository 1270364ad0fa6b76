import pytest

from tests.deploy.graph.nets import TARGETS, Net, kernels_of, max_error, operations_of


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("act", ["none", "relu", "relu6"])
@pytest.mark.parametrize("bias", [True, False])
def test_pointwise(act, bias, target):
    net = Net(20, 9, 11)
    model = net.model(net.conv("x", 30, act=act, bias=bias))
    assert kernels_of(model, target) == ["pack", "pointwise", "unpack"]
    assert max_error(model, target) < 1e-4


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(3, 1, 1), (5, 2, 1), (7, 1, 4)])
def test_depthwise(kernel, stride, dilation, target):
    net = Net(20, 19, 23)
    model = net.model(net.depthwise("x", kernel, stride=stride, dilation=dilation, act="relu6"))
    assert kernels_of(model, target) == ["pack", "depthwise", "unpack"]
    assert max_error(model, target) < 1e-4


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("act", ["none", "relu6"])
def test_sum_with_a_map_is_taken_in(act, target):
    net = Net(16, 9, 11)
    model = net.model(net.act(net.add("x", net.conv("x", 16)), act))
    assert kernels_of(model, target) == ["pack", "pointwise", "unpack"]
    assert max_error(model, target) < 1e-4


def test_sum_with_one_value_per_channel_is_taken_in():
    net = Net(16, 9, 11)
    model = net.model(net.add(net.conv("x", 24), net.conv(net.average("x"), 24)))
    assert kernels_of(model, "x86-64-v3") == ["pack", "global_pool", "pointwise", "unpack"]
    assert max_error(model, "x86-64-v3") < 1e-4


@pytest.mark.parametrize(
    "options",
    [
        {"kernel": 3},  # dense
        {"kernel": 1, "stride": 2},
        {"kernel": 3, "groups": 4},
        {"kernel": 3, "groups": 16, "pad": 0},
    ],
    ids=str,
)
def test_other_convolutions_are_left_to_tvm(options):
    net = Net(16, 9, 11)
    model = net.model(net.conv("x", 16, **options))
    assert "relax.nn.conv2d" in operations_of(model, "x86-64-v3")
    assert max_error(model, "x86-64-v3") < 1e-4
