"""The passes for the head: LCF, LGE, global context, resizes."""

import pytest

from tests.deploy.graph.nets import TARGETS, Net, kernels_of, max_error, operations_of

EXACT_ENOUGH = 2e-4  # sums of up to 256 products


def lge_and_fuse(*, gate=True, act="relu6", mid=40, low=(5, 7), size=(10, 14), out_act="relu6"):
    net = Net(16, *size)
    coarse = net.conv(net.resize("x", *low), mid)
    local = net.depthwise("x", act="relu6")
    wide = net.conv(local, mid)
    if gate:
        wide = net.multiply(wide, net.sigmoid(net.conv(net.average(local), mid)))
    total = net.act(net.add(wide, net.resize(coarse, *size)), act)
    return net.model(net.conv(total, 24, act=out_act))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    "options",
    [{}, {"gate": False}, {"act": "relu"}, {"low": (3, 9)}, {"out_act": "none"}],
    ids=str,
)
def test_lge_sum_and_fuse_layer_become_one_kernel(options, target):
    model = lge_and_fuse(**options)
    kernels = kernels_of(model, target)
    assert kernels.count("local_global") == 1
    assert kernels.count("global_pool") == (1 if options.get("gate", True) else 0)
    assert operations_of(model, target).count("relax.multiply") == 0
    assert max_error(model, target) < EXACT_ENOUGH


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("act", ["none", "relu6"])
def test_upsample_add(act, target):
    net = Net(20, 10, 14)
    coarse = net.conv(net.resize("x", 4, 5), 36)
    model = net.model(net.act(net.add(net.conv("x", 36), net.resize(coarse, 10, 14)), act))
    assert kernels_of(model, target) == ["pack", "resize", "pointwise", "upsample_add", "unpack"]
    assert max_error(model, target) < EXACT_ENOUGH


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("end", ["none", "relu6", "sigmoid"])
def test_global_pool(end, target):
    net = Net(20, 10, 14)
    y = net.conv(net.average("x"), 36, act=end if end == "relu6" else "none")
    model = net.model(net.sigmoid(y) if end == "sigmoid" else y)
    assert kernels_of(model, target) == ["pack", "global_pool", "unpack"]
    assert max_error(model, target) < 1e-4


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("size", [(5, 7), (20, 28), (4, 31), (1, 1)])
def test_resize(size, target):
    net = Net(20, 10, 14)
    # Behind a convolution: a resize that is the network's result is an output end.
    model = net.model(net.conv(net.resize("x", *size), 8))
    assert kernels_of(model, target) == ["pack", "resize", "pointwise", "unpack"]
    assert max_error(model, target) < 1e-4


def test_a_resize_with_other_coordinates_is_left_to_tvm():
    net = Net(20, 10, 14)
    model = net.model(net.conv(net.resize("x", 20, 28, "align_corners"), 8))
    assert "relax.image.resize2d" in operations_of(model, "x86-64-v3")
    assert max_error(model, "x86-64-v3") < 1e-4
