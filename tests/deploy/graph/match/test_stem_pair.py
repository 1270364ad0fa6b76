import pytest

from lut.ops import InvertedResidual, StemBlock, StemPair
from tests.deploy.graph.nets import TARGETS, Net, kernels_of, max_error, placed


def network(*, residual=False, cout=16, first=None, **options):
    net = Net(3, 30, 44)
    stem = net.conv("x", 20, 3, stride=2, act="relu6")
    middle = net.conv(net.depthwise(stem, act="relu6", **(first or {})), 10)
    hidden = net.depthwise(net.conv(middle, 60, act="relu6"), act="relu6", **options)
    y = net.conv(hidden, 10 if residual else cout)
    return net, middle, net.add(y, middle) if residual else y


def pair(first, **second):
    block = StemBlock(20, 10, 30, 44, source="float32_nchw", **first)
    return StemPair(block, InvertedResidual(10, 60, 16, *block.output[1:], **second))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": 2},
        {"kernel": 5, "stride": 2},
        {"stride": 3},
        {"first": {"stride": 2}},
        {"first": {"kernel": 5, "dilation": 2}, "dilation": 2},
    ],
)
def test_stem_and_two_blocks_become_one_kernel(options, target):
    net, _, y = network(**options)
    model = net.model(y)
    second = {name: value for name, value in options.items() if name != "first"}
    assert placed(model) == [pair(options.get("first", {}), **second)]
    assert kernels_of(model, target) == ["stem_pair", "unpack"]
    assert max_error(model, target) < 1e-4


@pytest.mark.parametrize("target", TARGETS)
def test_a_map_between_that_is_read_elsewhere_is_written(target):
    net, middle, y = network()
    model = net.model(y, middle)
    assert placed(model) == list(pair({}).parts())
    assert "stem_pair" not in kernels_of(model, target)
    assert max_error(model, target) < 1e-4


@pytest.mark.parametrize("target", TARGETS)
def test_a_first_block_of_stride_three_stays_apart(target):
    net, _, y = network(first={"stride": 3})
    model = net.model(y)
    whole = pair({"stride": 3})
    assert placed(model) == [whole.first.stem, whole.first.block, whole.second]
    assert "stem_pair" not in kernels_of(model, target)
    assert max_error(model, target) < 1e-4


@pytest.mark.parametrize("target", TARGETS)
def test_a_residual_block_stays_apart(target):
    net, _, y = network(residual=True)
    model = net.model(y)
    first = pair({}).first
    assert placed(model) == [first, InvertedResidual(10, 60, 10, 15, 22, residual=True)]
    assert kernels_of(model, target)[:2] == ["stem_block", "inverted_residual"]
    assert max_error(model, target) < 1e-4


def test_a_second_block_without_an_expansion_stays_apart():
    net = Net(3, 30, 44)
    stem = net.conv("x", 20, 3, stride=2, act="relu6")
    middle = net.conv(net.depthwise(stem, act="relu6"), 10)
    model = net.model(net.conv(net.depthwise(middle, act="relu6"), 16))
    second = InvertedResidual(10, 10, 16, 15, 22, expand=False)
    assert placed(model) == [pair({}).first, second]
    assert max_error(model, "x86-64-v3") < 1e-4
