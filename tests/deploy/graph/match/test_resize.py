import pytest

from lut.ops import Depthwise, Pointwise, Resample, Resize
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
@pytest.mark.parametrize("size", [(5, 7), (20, 28), (4, 31), (1, 1)])
def test_any_ratio(size, target):
    net = Net(20, 10, 14)
    # Behind it a convolution: a resize that is the network's result is another operation. A 1x1
    # convolution would move before a resize that enlarges (MergeLinear).
    model = net.model(net.depthwise(net.resize("x", *size)))
    expected = [Resize(20, 10, 14, *size), Depthwise(20, *size, act="none")]
    assert placed(model) == placed_on_a_gpu(model) == expected
    assert kernels_of(model, target) == ["pack", "resize", "depthwise", "unpack"]
    assert max_error(model, target) < 1e-4


@pytest.mark.parametrize("target", TARGETS)
def test_enlarges_what_a_convolution_behind_it_makes(target):
    net = Net(20, 10, 14)
    model = net.model(net.conv(net.resize("x", 20, 28), 8))
    assert kernels_of(model, target) == ["pack", "pointwise", "resample", "unpack"]
    assert max_error(model, target) < 1e-4


def test_on_a_gpu():
    net = Net(20, 10, 14)
    assert gpu_error(net.model(net.conv(net.resize("x", 20, 31), 8))) < 1e-4


@pytest.mark.parametrize("mode", ["align_corners", "asymmetric", "pytorch_half_pixel"])
@pytest.mark.parametrize("size", [(20, 28), (7, 31), (1, 1), (10, 28)])
def test_other_coordinates(mode, size):
    net = Net(20, 10, 14)
    model = net.model(net.conv(net.resize("x", *size, mode), 8))
    resized, pointwise = placed(model)
    assert (resized.kind, pointwise) == ("resample", Pointwise(20, 8, *size))
    assert placed_on_a_gpu(model) == [pointwise]
    assert kernels_of(model, "x86-64-v3") == ["pack", "resample", "pointwise", "unpack"]
    assert max_error(model, "x86-64-v3") < 1e-4


def test_cubic():
    net = Net(20, 10, 14)
    planes = net.resize("x", 20, 21)
    next(a for a in net.nodes[-1].attribute if a.name == "mode").s = b"cubic"
    model = net.model(planes)
    assert placed(model) == [Resample(20, 10, 14, 20, 21, (4, 4))]
    assert max_error(model, "x86-64-v3") < 1e-4


def test_what_follows_goes_along():
    net = Net(20, 10, 14)
    low = net.resize("x", 20, 28)
    model = net.model(net.act(net.add(low, net.resize(net.act("x", "relu"), 20, 28)), "relu"))
    first, second = placed(model)[-2:]
    assert first == Resize(20, 10, 14, 20, 28)
    assert second == Resample(20, 10, 14, 20, 28, (2, 2), ("add", "relu"))
    assert max_error(model, "x86-64-v3") < 1e-4


def test_along_one_axis():
    net = Net(20, 10, 14)
    model = net.model(net.resize("x", 10, 29, "align_corners"))
    assert placed(model) == [Resample(20, 10, 14, 10, 29, (1, 2))]
    assert max_error(model, "x86-64-v3") < 1e-4


def test_the_nearest_pixel():
    net = Net(20, 10, 14)
    net.resize("x", 20, 28)
    sizes = net.nodes.pop().input[3]
    near = net._node(
        "Resize", ["x", "", "", sizes], 20, mode="nearest", nearest_mode="floor",
        coordinate_transformation_mode="asymmetric",
    )  # fmt: skip
    model = net.model(net.conv(near, 8))
    assert placed(model) == [Resample(20, 10, 14, 20, 28, (1, 1)), Pointwise(20, 8, 20, 28)]
    assert max_error(model, "x86-64-v3") < 1e-4
