import pytest

from lut.ops import Conv, GlobalMean, GlobalPool, Pointwise, Resample, Resize
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
@pytest.mark.parametrize("act", ["none", "relu", "relu6", "hswish", "sigmoid"])
@pytest.mark.parametrize("bias", [True, False])
def test_with_its_activation(act, bias, target):
    net = Net(20, 9, 11)
    model = net.model(net.conv("x", 30, act=act, bias=bias))
    assert placed(model) == placed_on_a_gpu(model) == [Pointwise(20, 30, 9, 11, act)]
    assert kernels_of(model, target) == ["pack", "pointwise", "unpack"]
    assert max_error(model, target) < 1e-4


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("act", ["none", "relu6", "sigmoid"])
def test_a_map_is_added(act, target):
    net = Net(16, 9, 11)
    model = net.model(net.act(net.add("x", net.conv("x", 16)), act))
    assert placed(model) == placed_on_a_gpu(model) == [Pointwise(16, 16, 9, 11, act, "map")]
    assert kernels_of(model, target) == ["pack", "pointwise", "unpack"]
    assert max_error(model, target) < 1e-4


def test_one_value_per_channel_is_added():
    net = Net(16, 9, 11)
    model = net.model(net.add(net.conv("x", 24), net.conv(net.average("x"), 24)))
    sum_ = Pointwise(16, 24, 9, 11, add="channel")
    assert placed(model) == [GlobalPool(16, 24, 9, 11), sum_]
    assert placed_on_a_gpu(model) == [GlobalMean(16, 9, 11), Pointwise(16, 24, 1, 1), sum_]
    assert kernels_of(model, "x86-64-v3") == ["pack", "global_pool", "pointwise", "unpack"]
    assert max_error(model, "x86-64-v3") < 1e-4


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("act", ["none", "relu6", "sigmoid"])
def test_a_smaller_map_is_upsampled_and_added(act, target):
    """Linear cumulative fusion (paper section 3.1)."""
    net = Net(20, 10, 14)
    coarse = net.conv(net.resize("x", 4, 5), 36)
    model = net.model(net.act(net.add(net.conv("x", 36), net.resize(coarse, 10, 14)), act))
    expected = [
        Resize(20, 10, 14, 4, 5), Pointwise(20, 36, 4, 5),
        Pointwise(20, 36, 10, 14, act, "low", low_height=4, low_width=5),
    ]  # fmt: skip
    assert placed(model) == placed_on_a_gpu(model) == expected
    assert kernels_of(model, target) == ["pack", "resize", "pointwise", "pointwise", "unpack"]
    assert max_error(model, target) < 2e-4


def gated(*, act="relu6", add="low", gate=32, swap=False):
    """A convolution times a gate of so many channels, and something that is added."""
    net = Net(16, 8, 12)
    factor = net.sigmoid(net.conv(net.average("x"), gate))
    y = net.conv("x", 32)
    y = net.multiply(factor, y) if swap else net.multiply(y, factor)
    if add == "low":
        y = net.add(y, net.resize(net.conv(net.resize("x", 4, 5), 32), 8, 12))
    elif add == "map":
        y = net.add(net.depthwise(net.conv("x", 32)), y)
    return net, net.act(y, act)


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize(("act", "add"), [("relu6", "low"), ("none", "map"), ("sigmoid", "none")])
def test_a_gate(act, add, swap):
    """GPUs have a kernel with a gate; on a CPU only the large operation of the head has one, and
    elsewhere the product is a step of a kernel behind the convolution."""
    net, y = gated(act=act, add=add, swap=swap)
    model = net.model(y)
    low = (4, 5) if add == "low" else (0, 0)
    assert placed_on_a_gpu(model)[-1] == Pointwise(16, 32, 8, 12, act, add, True, *low)
    assert gpu_error(model) < 2e-4
    alone = Pointwise(16, 32, 8, 12)
    assert alone in placed(model)
    assert not [op for op in placed(model) if isinstance(op, Pointwise) and op.gate]
    steps = [step for op in placed(model) for step in getattr(op, "then", ())]
    assert steps.count("mul_channel") == 1
    assert "relax.multiply" not in operations_of(model, "x86-64-v3")
    assert max_error(model, "x86-64-v3") < 2e-4


def test_a_map_is_no_gate():
    net = Net(16, 8, 12)
    model = net.model(net.multiply(net.conv("x", 32), net.conv("x", 32, act="relu")))
    expected = [Pointwise(16, 32, 8, 12), Pointwise(16, 32, 8, 12, "relu")]
    assert placed_on_a_gpu(model) == expected
    assert gpu_error(model) < 2e-4


def test_one_addend_of_two_convolutions_is_taken_in():
    net = Net(16, 9, 11)
    model = net.model(net.add(net.conv("x", 24), net.conv("x", 24)))
    expected = [Pointwise(16, 24, 9, 11), Pointwise(16, 24, 9, 11, add="map")]
    assert placed(model) == placed_on_a_gpu(model) == expected
    assert max_error(model, "x86-64-v3") < 1e-4


def test_a_sum_that_spreads_a_pixel_over_a_map_is_not_taken_for_a_map():
    """The convolution of one pixel, and a resized map: the sum has the map's size, and the pixel is
    one value per channel of it."""
    net = Net(16, 9, 11)
    pixel, up = net.conv(net.average("x"), 16), net.resize(net.resize("x", 4, 5), 9, 11)
    model = net.model(net.conv(net.add(pixel, up), 8))
    kinds = ["resize", "global_pool", "resample", "pointwise"]
    assert [op.kind for op in placed(model)] == kinds
    assert placed(model)[2] == Resample(16, 4, 5, 9, 11, (2, 2), ("add_channel",))
    assert operations_of(model, "x86-64-v3") == ["pack", *kinds, "unpack"]
    assert max_error(model, "x86-64-v3") < 1e-4
    assert gpu_error(model) < 1e-4


LOW = {"low_height": 4, "low_width": 6}


@pytest.mark.parametrize(
    ("add", "read", "sums"),
    [
        ("map", "own", [Pointwise(16, 24, 8, 12, "relu", "map")]),  # into the other convolution
        ("map", "total", [Pointwise(16, 24, 8, 12, "none", "map")]),
        ("low", "own", []),
        ("low", "other", [Pointwise(16, 24, 8, 12, "relu", "map")]),
        ("low", "total", [Pointwise(16, 24, 8, 12, "none", "low", **LOW)]),
    ],
)
def test_values_that_are_read_elsewhere_are_written(add, read, sums):
    net = Net(16, 8, 12)
    values = {"own": net.conv("x", 24), "other": net.conv("x", 24)}
    if add == "low":
        values["other"] = net.resize(net.conv(net.resize("x", 4, 6), 24), 8, 12)
    values["total"] = net.add(values["own"], values["other"])
    last = net.conv(net.act(values["total"], "relu"), 8)
    model = net.model(last, net.depthwise(values[read]))
    for found in (placed(model), placed_on_a_gpu(model)):
        assert [op for op in found if isinstance(op, Pointwise) and op.add != "none"] == sums
    assert max_error(model, "x86-64-v3") < 2e-4


@pytest.mark.parametrize(
    ("options", "fields"),
    [
        ({"stride": 2}, {"stride": (2, 2)}),
        ({"groups": 4}, {"groups": 4}),
        ({"pad": 1}, {"pad": (1, 1, 1, 1)}),
        ({"kernel": 3}, {"kernel": (3, 3), "pad": (1, 1, 1, 1)}),
    ],
    ids=str,
)
def test_others_are_convolutions_of_any_window(options, fields):
    """On a CPU; GPUs leave them to TVM."""
    net = Net(16, 9, 11)
    model = net.model(net.conv("x", 16, **options))
    assert placed(model) == [Conv((16,), 16, 9, 11, **fields)]
    assert placed_on_a_gpu(model) == []
    assert operations_of(model, "x86-64-v3") == ["pack", "conv", "unpack"]
    assert max_error(model, "x86-64-v3") < 1e-4
