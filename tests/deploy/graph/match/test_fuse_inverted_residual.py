import pytest

from tests.deploy.graph.nets import TARGETS, Net, kernels_of, max_error, operations_of


def block(
    *, cin=16, hidden=48, cout=16, kernel=3, stride=1, dilation=1, act="relu6", residual=True,
    expand=True, swap=False, size=(13, 21),
):  # fmt: skip
    net = Net(cin, *size)
    wide = net.conv("x", hidden, act=act) if expand else "x"
    depth = net.depthwise(wide, kernel, stride=stride, dilation=dilation, act=act)
    y = net.conv(depth, cout)
    if residual:
        y = net.add("x", y) if swap else net.add(y, "x")
    return net.model(y)


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
    ],
    ids=str,
)
def test_block_becomes_one_kernel(options, target):
    model = block(**options)
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
    assert kernels_of(model, "x86-64-v3").count("inverted_residual") == 0
    assert max_error(model, "x86-64-v3") < 1e-4
    # The expansion is read twice: depthwise and projection still fuse.
    net = Net(16, 12, 20)
    wide = net.conv("x", 48, act="relu6")
    model = net.model(net.conv(net.depthwise(wide, act="relu6"), 16), wide)
    assert "inverted_residual" in kernels_of(model, "x86-64-v3")
    assert max_error(model, "x86-64-v3") < 1e-4


def test_sum_with_another_tensor_is_no_residual():
    net = Net(16, 12, 20)
    other = net.conv("x", 16, act="relu6")
    y = net.conv(net.depthwise(net.conv("x", 48, act="relu6"), act="relu6"), 16)
    model = net.model(net.add(y, other))
    assert "inverted_residual" in kernels_of(model, "x86-64-v3")
    assert max_error(model, "x86-64-v3") < 1e-4


def test_different_activations_are_not_taken_for_one():
    net = Net(16, 12, 20)
    wide = net.conv("x", 48, act="relu")
    model = net.model(net.conv(net.depthwise(wide, act="relu6"), 16))
    assert max_error(model, "x86-64-v3") < 1e-4


@pytest.mark.parametrize("act", ["relu", "relu6"])
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
    """A variant of MobileNetV2: the clip stays, in the blocked layout, and clips what it should."""
    net = Net(16, 13, 21)
    wide = net.conv("x", 48, act="relu6")
    y = net.conv(net.depthwise(wide, act="relu6"), 16)
    y = net.act(net.add(y, "x") if residual else y, act)
    model = net.model(net.conv(y, 8))
    names = operations_of(model, "x86-64-v3")
    left = "relax.nn.relu" if act == "relu" else "relax.clip"
    assert names == ["pack", "inverted_residual", left, "pointwise", "unpack"]
    assert max_error(model, "x86-64-v3") < 1e-4


def test_activated_and_linear_value_both_read():
    """The projection is read as it is and through a ReLU: both stay right."""
    net = Net(16, 13, 21)
    linear = net.conv(net.depthwise("x", act="relu"), 16)
    model = net.model(net.act(linear, "relu"), linear)
    assert "inverted_residual" in kernels_of(model, "x86-64-v3")
    assert max_error(model, "x86-64-v3") < 1e-4


def test_nothing_of_ours_below_avx2():
    names = operations_of(block(), "x86-64-v2")
    assert all(name.startswith("relax.") for name in names)
    assert max_error(block(), "x86-64-v2") < 1e-4
