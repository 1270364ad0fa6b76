"""Products of maps as networks write them: what they become, and its numbers."""

from collections import Counter

import numpy as np
import pytest

from deploy.graph.export import import_onnx
from tests.deploy import attention_networks
from tests.deploy.graph.nets import TARGETS, max_error, noise, operations_of
from tests.deploy.graph.test_channels_first import C, H, N, Tokens, W

# Of each network what it has besides convolutions and norms, and what is left to TVM.
EXPECTED = {
    "efficientvit": ({"product": 3, "global_mean": 1}, {"divide": 1}),
    "mobilevit": ({"attention": 2}, {}),
    "restormer": (
        {"product": 2, "global_mean": 2},
        {"sqrt": 2, "maximum": 2, "divide": 2, "nn.softmax": 1, "reshape": 2},
    ),
    "swin": ({"attention": 1}, {}),
}
WIDTHS = (8, 16, 32)


@pytest.fixture(scope="module", params=list(EXPECTED))
def network(request):
    return request.param, getattr(attention_networks, request.param)(WIDTHS)


@pytest.mark.parametrize("dynamo", [False, True])
def test_exporters_write_what_is_found(network, dynamo, tmp_path):
    name, module = network
    attention_networks.save(module, tmp_path / "network.onnx", (64, 96), dynamo=dynamo)
    graph = import_onnx(tmp_path / "network.onnx", mean=None, std=None)
    names = Counter(operations_of(graph, TARGETS[1]))
    ours, left = EXPECTED[name]
    assert {kind: names[kind] for kind in ours} == ours
    assert {n.removeprefix("relax."): k for n, k in names.items() if "relax." in n} == left


class Heads(Tokens):
    """Tokens as heads (1, heads, channels, pixels) and (1, heads, pixels, channels)."""

    def heads(self, channels: int = C, heads: int = 2, *, turned: bool = False) -> str:
        x = self.reshape(self.conv(self.map, channels), 1, heads, channels // heads, N)
        return self.turn(x, 0, 1, 3, 2) if turned else x

    def whole(self, x: str, channels: int = C) -> str:
        y = self.reshape(x, 1, channels, H, W)
        self.channels[y] = channels
        return y


def check(net: Heads, output: str, products: int, left: int = 0) -> None:
    model = net.model(output)
    names = operations_of(model, TARGETS[0])
    assert names.count("product") == products, names
    assert len([name for name in names if name.startswith("relax.")]) == left, names
    assert max_error(model, TARGETS[0]) < 1e-3


def test_channels_by_channels_and_back():
    """As attention between channels and linear attention have it: one sum over pixels."""
    net = Heads()
    q, k, v = net.heads(), net.heads(turned=True), net.heads()
    weights = net.op("Mul", net.op("MatMul", q, k), net.number(1 / N))
    check(net, net.whole(net.op("MatMul", weights, v)), 2)


def test_pixels_by_channels():
    """The same with the channels last."""
    net = Heads()
    q, k, v = net.heads(turned=True), net.heads(), net.heads(turned=True)
    context = net.op("Mul", net.op("MatMul", k, v), net.number(1 / N))
    mixed = net.turn(net.op("MatMul", q, context), 0, 1, 3, 2)
    check(net, net.op("Relu", net.whole(mixed)), 2)


@pytest.mark.parametrize("turned", [False, True])
def test_attention_of_one_head(turned):
    """As DANet has it: values by weights, which are turned."""
    net = Heads()
    q, k, v = net.heads(heads=1, turned=True), net.heads(heads=1), net.heads(heads=1)
    weights = net.op("Softmax", net.op("Mul", net.op("MatMul", q, k), net.number(0.2)), axis=-1)
    if turned:
        mixed = net.op("MatMul", v, net.turn(weights, 0, 1, 3, 2))
    else:
        v = net.turn(v, 0, 1, 3, 2)
        mixed = net.turn(net.op("MatMul", weights, v), 0, 1, 3, 2)
    model = net.model(net.op("Relu", net.whole(mixed)))
    names = operations_of(model, TARGETS[0])
    assert names.count("attention") == 1
    assert not [name for name in names if name.startswith("relax.")]
    assert max_error(model, TARGETS[0]) < 1e-4


def test_a_factor_that_no_map_has():
    """A matrix that operators of TVM's make, here a running sum."""
    net = Heads()
    q, k, v = net.heads(), net.heads(turned=True), net.heads()
    weights = net.op("Mul", net.op("MatMul", q, k), net.number(1 / N))
    weights = net.op("CumSum", weights, net._weight(np.array(3)))
    model = net.model(net.op("Relu", net.whole(net.op("MatMul", weights, v))))
    assert operations_of(model, TARGETS[0]).count("product") == 2
    assert max_error(model, TARGETS[0]) < 1e-3


@pytest.mark.parametrize("ones", ["pad", "concat"])
def test_sums_beside_products(ones):
    """A column of ones, whose products are sums, by which the others are divided."""
    net = Heads()
    q, k, v = net.heads(turned=True), net.heads(), net.heads(turned=True)
    q, k = net.op("Sigmoid", q), net.op("Sigmoid", k)
    if ones == "pad":
        v = net.op("Pad", v, net.integers(0, 0, 0, 0, 0, 0, 0, 1), net.number(1.0))
    else:
        column = net._weight(np.ones((1, 2, N, 1), np.float32))
        v = net.op("Concat", v, column, axis=-1)
    y = net.op("MatMul", q, net.op("MatMul", k, v))
    above, below = (
        net.op("Slice", y, net.integers(a), net.integers(b), net.integers(3))
        for a, b in ((0, -1), (-1, 2**31))
    )
    y = net.op("Div", above, net.op("Add", below, net.number(1e-5)))
    check(net, net.op("Relu", net.whole(net.turn(y, 0, 1, 3, 2))), 3, left=1)


def test_scores_with_a_bias_for_each_head_and_group():
    """Added at once or one after the other, with batches that are counted otherwise between."""
    net, heads, side = Tokens(), 2, 2
    rows, columns = H // side, W // side

    def windows(x: str) -> str:
        x = net.reshape(net.turn(x, 0, 2, 3, 1), 1, rows, side, columns, side, C)
        x = net.reshape(net.turn(x, 0, 1, 3, 2, 4, 5), rows * columns, side**2, heads, C // heads)
        return net.turn(x, 0, 2, 1, 3)

    q, k, v = (windows(net.conv(net.map, C)) for _ in range(3))
    scores = net.op("MatMul", q, net.turn(k, 0, 1, 3, 2))
    pairs = side**2, side**2
    scores = net.op("Add", scores, net.normal(1, heads, *pairs))
    scores = net.reshape(scores, 1, rows * columns, heads, *pairs)
    scores = net.op("Add", scores, net.normal(1, rows * columns, 1, *pairs))
    scores = net.reshape(scores, rows * columns, heads, *pairs)
    mixed = net.op("MatMul", net.op("Softmax", scores, axis=-1), v)
    mixed = net.reshape(net.turn(mixed, 0, 2, 1, 3), 1, rows, columns, side, side, C)
    y = net.turn(net.reshape(net.turn(mixed, 0, 1, 3, 2, 4, 5), 1, H, W, C), 0, 3, 1, 2)
    model = net.model(net.op("Relu", y))
    names = operations_of(model, TARGETS[0])
    assert names.count("attention") == 1
    assert not [name for name in names if name.startswith("relax.")]
    # Scores of some units, as networks have them: nothing divides them here, and a softmax of
    # scores of a hundred turns their rounding into shares.
    assert max_error(model, TARGETS[0], noise(model) / 8) < 1e-5
