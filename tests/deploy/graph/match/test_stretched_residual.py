"""An addition that stretches one of its sides is no residual of the block."""

import pytest

from lut.ops import Elementwise, InvertedResidual
from tests.deploy.graph.nets import TARGETS, Net, kernels_of, max_error, operations_of, placed


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("cin", "cout", "stride", "size", "step"),
    [
        (1, 8, 1, (5, 6), "add_pixel"),
        (8, 1, 1, (5, 6), "add_pixel"),
        (8, 8, 2, (2, 2), "add_channel"),  # to the input
    ],
)
def test_it_stays_an_addition(cin, cout, stride, size, step, target):
    net = Net(cin, *size)
    depth = net.depthwise(net.conv("x", 24, act="relu6"), stride=stride, act="relu6")
    model = net.model(net.add(net.conv(depth, cout), "x"))
    block = InvertedResidual(cin, 24, cout, *size, stride=stride)
    assert placed(model) == [block, Elementwise(8, *size, (step,))]
    names = operations_of(model, target)
    assert [name for name in names if name not in ("pack", "unpack")] == [block.kind, "elementwise"]
    assert max_error(model, target) < 1e-4


@pytest.mark.parametrize("target", TARGETS)
def test_at_one_pixel_a_stride_changes_no_shape(target):
    net = Net(8, 1, 1)
    depth = net.depthwise(net.conv("x", 24, act="relu6"), stride=2, act="relu6")
    model = net.model(net.add(net.conv(depth, 8), "x"))
    assert kernels_of(model, target) == ["pack", "inverted_residual", "unpack"]
    assert max_error(model, target) < 1e-4
