import pytest

from lut.ops import Pointwise, Resize
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
@pytest.mark.parametrize("size", [(5, 7), (20, 28), (4, 31), (1, 1)])
def test_any_ratio(size, target):
    net = Net(20, 10, 14)
    # Behind it a convolution: a resize that is the network's result is another operation.
    model = net.model(net.conv(net.resize("x", *size), 8))
    expected = [Resize(20, 10, 14, *size), Pointwise(20, 8, *size)]
    assert placed(model) == placed_on_a_gpu(model) == expected
    assert kernels_of(model, target) == ["pack", "resize", "pointwise", "unpack"]
    assert max_error(model, target) < 1e-4


def test_on_a_gpu():
    net = Net(20, 10, 14)
    assert gpu_error(net.model(net.conv(net.resize("x", 20, 31), 8))) < 1e-4


def test_other_coordinates_are_left_to_tvm():
    net = Net(20, 10, 14)
    model = net.model(net.conv(net.resize("x", 20, 28, "align_corners"), 8))
    assert placed(model) == placed_on_a_gpu(model) == [Pointwise(20, 8, 20, 28)]
    # One axis after the other, as the importer writes it.
    assert operations_of(model, "x86-64-v3").count("relax.call_tir") == 2
    assert max_error(model, "x86-64-v3") < 1e-4


def test_the_nearest_pixel_is_left_to_tvm():
    net = Net(20, 10, 14)
    net.resize("x", 20, 28)
    sizes = net.nodes.pop().input[3]
    near = net._node(
        "Resize", ["x", "", "", sizes], 20, mode="nearest", nearest_mode="floor",
        coordinate_transformation_mode="asymmetric",
    )  # fmt: skip
    model = net.model(net.conv(near, 8))
    assert placed(model) == placed_on_a_gpu(model) == [Pointwise(20, 8, 20, 28)]
    assert max_error(model, "x86-64-v3") < 1e-4
