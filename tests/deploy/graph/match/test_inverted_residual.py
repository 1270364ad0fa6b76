import pytest

from lut.ops import Conv, Depthwise, Elementwise, InvertedResidual, Pointwise
from tests.deploy.graph.nets import (
    TARGETS,
    Net,
    kernels_of,
    max_error,
    operations_of,
    placed,
    placed_on_a_gpu,
)

SIZE = (13, 21)


def block(
    *, cin=16, hidden=48, cout=16, kernel=3, stride=1, dilation=1, act="relu6", residual=True,
    expand=True, swap=False,
):  # fmt: skip
    net = Net(cin, *SIZE)
    wide = net.conv("x", hidden, act=act) if expand else "x"
    depth = net.depthwise(wide, kernel, stride=stride, dilation=dilation, act=act)
    y = net.conv(depth, cout)
    if residual:
        y = net.add("x", y) if swap else net.add(y, "x")
    operation = InvertedResidual(
        cin, hidden if expand else cin, cout, *SIZE, kernel, stride, dilation, expand, residual, act
    )
    return net.model(y), operation


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"swap": True},
        {"act": "relu"},
        {"cout": 24, "residual": False},
        {"cout": 24, "residual": False, "stride": 2},
        {"expand": False, "cout": 8, "residual": False},
        {"kernel": 7, "dilation": 2},
        {"kernel": 5, "stride": 2, "residual": False},
        {"cin": 10, "hidden": 30, "cout": 10},
        {"expand": False},
        {"act": "sigmoid"},
    ],
    ids=str,
)
def test_block_becomes_one_kernel(options, target):
    model, operation = block(**options)
    assert placed(model) == [operation]
    assert placed_on_a_gpu(model) == list(operation.parts())
    assert kernels_of(model, target) == ["pack", "inverted_residual", "unpack"]
    assert max_error(model, target) < 1e-4


def test_blocks_in_a_row_have_no_conversion_between_them():
    net = Net(16, 12, 20)
    y = "x"
    for _ in range(3):
        y = net.add(net.conv(net.depthwise(net.conv(y, 96, act="relu6"), act="relu6"), 16), y)
    model = net.model(y)
    assert kernels_of(model, "x86-64-v3") == ["pack", *["inverted_residual"] * 3, "unpack"]
    assert max_error(model, "x86-64-v3") < 1e-4


def test_hidden_values_that_are_read_elsewhere_are_not_fused_away():
    net = Net(16, 12, 20)
    wide = net.conv("x", 48, act="relu6")
    depth = net.depthwise(wide, act="relu6")
    model = net.model(net.conv(depth, 16), depth)
    parts = InvertedResidual(16, 48, 16, 12, 20).parts()
    assert placed(model) == placed_on_a_gpu(model) == list(parts)
    assert max_error(model, "x86-64-v3") < 1e-4
    # The expansion is read twice: depthwise and projection still fuse.
    net = Net(16, 12, 20)
    wide = net.conv("x", 48, act="relu6")
    model = net.model(net.conv(net.depthwise(wide, act="relu6"), 16), wide)
    block = InvertedResidual(48, 48, 16, 12, 20, expand=False)
    assert placed(model) == [Pointwise(16, 48, 12, 20, "relu6"), block]
    assert max_error(model, "x86-64-v3") < 1e-4
    # And of the projection: it is added, but not inside: by a kernel of its own.
    net = Net(16, 12, 20)
    projected = net.conv(net.depthwise(net.conv("x", 48, act="relu6"), act="relu6"), 16)
    model = net.model(net.add(projected, "x"), projected)
    added = Elementwise(16, 12, 20, ("add",))
    assert placed(model) == [InvertedResidual(16, 48, 16, 12, 20), added]
    names = operations_of(model, "x86-64-v3")
    assert (names.count("elementwise"), names.count("relax.add")) == (1, 0)
    assert max_error(model, "x86-64-v3") < 1e-4


def test_sum_with_another_tensor_is_no_residual():
    """It is a step of the other tensor's convolution."""
    net = Net(16, 12, 20)
    other = net.conv("x", 16, act="relu6")
    y = net.conv(net.depthwise(net.conv("x", 48, act="relu6"), act="relu6"), 16)
    model = net.model(net.add(y, other))
    block = InvertedResidual(16, 48, 16, 12, 20)
    assert placed(model) == [block, Conv((16,), 16, 12, 20, then=("relu6", "add"))]
    assert max_error(model, "x86-64-v3") < 1e-4


def test_different_activations_are_not_taken_for_one():
    net = Net(16, 12, 20)
    wide = net.conv("x", 48, act="relu")
    model = net.model(net.conv(net.depthwise(wide, act="relu6"), 16))
    block = InvertedResidual(48, 48, 16, 12, 20, expand=False)
    assert placed(model) == [Pointwise(16, 48, 12, 20, "relu"), block]
    assert max_error(model, "x86-64-v3") < 1e-4


def test_a_depthwise_convolution_without_an_activation_is_no_block():
    net = Net(16, *SIZE)
    model = net.model(net.conv(net.depthwise("x"), 24))
    parts = [Depthwise(16, *SIZE, act="none"), Pointwise(16, 24, *SIZE)]
    assert placed(model) == placed_on_a_gpu(model) == parts
    assert max_error(model, "x86-64-v3") < 1e-4


@pytest.mark.parametrize("act", ["relu", "relu6", "sigmoid"])
@pytest.mark.parametrize("target", TARGETS)
def test_activation_after_a_separable_convolution_is_inside_a_kernel(act, target):
    """DeepLab's: nothing is left to TVM."""
    net = Net(16, 13, 21)
    y = net.conv(net.depthwise("x", act=act), 24, act=act)
    model = net.model(net.conv(y, 8))
    assert operations_of(model, target) == ["pack", "depthwise", "pointwise", "pointwise", "unpack"]
    assert max_error(model, target) < 1e-4


@pytest.mark.parametrize("act", ["relu", "relu6"])
@pytest.mark.parametrize("residual", [False, True])
def test_activation_after_an_expanded_block_stays_behind_the_kernel(act, residual):
    """A variant of MobileNetV2: the clip is a kernel of its own, in the blocked layout, and clips
    what it should."""
    net = Net(16, 13, 21)
    wide = net.conv("x", 48, act="relu6")
    y = net.conv(net.depthwise(wide, act="relu6"), 16)
    y = net.act(net.add(y, "x") if residual else y, act)
    model = net.model(net.conv(y, 8))
    names = operations_of(model, "x86-64-v3")
    block = InvertedResidual(16, 48, 16, *SIZE, residual=residual)
    clip = Elementwise(16, *SIZE, (act,))
    assert placed(model) == [block, clip, Pointwise(16, 8, *SIZE)]
    assert names == ["pack", "inverted_residual", "elementwise", "pointwise", "unpack"]
    assert max_error(model, "x86-64-v3") < 1e-4


def test_activated_and_linear_value_both_read():
    """The projection is read as it is and through a ReLU: both stay right."""
    net = Net(16, 13, 21)
    linear = net.conv(net.depthwise("x", act="relu"), 16)
    model = net.model(net.act(linear, "relu"), linear)
    block = InvertedResidual(16, 16, 16, *SIZE, expand=False, act="relu")
    assert placed(model) == [block, Elementwise(16, *SIZE, ("relu",))]
    assert max_error(model, "x86-64-v3") < 1e-4


def test_an_expansion_that_ends_another_block_is_not_taken_twice():
    """Of separable convolutions in a row each 1x1 convolution could expand for the next."""
    net = Net(16, *SIZE)
    y = "x"
    for _ in range(3):
        y = net.conv(net.depthwise(y, act="relu"), 16, act="relu")
    model = net.model(net.conv(net.depthwise(y, act="relu"), 16))
    depthwise = Depthwise(16, *SIZE, act="relu")
    block = InvertedResidual(16, 16, 16, *SIZE, act="relu")
    between = Elementwise(16, *SIZE, ("relu",))  # of the first block's projection
    assert placed(model) == [depthwise, block, between, depthwise, block]
    assert max_error(model, "x86-64-v3") < 1e-4
