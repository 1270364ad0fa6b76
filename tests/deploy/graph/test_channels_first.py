"""Tokens and channels-last maps, as transformers and MLPs write them, computed as maps."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.graph.orders import order_of_map, reshaped, tidy
from tests.deploy.graph.nets import RNG, TARGETS, Net, kernels_of, max_error, operations_of

C, H, W = 32, 6, 8
N = H * W


class Tokens(Net):
    """A net whose values may have any shape; `x` is convolved first: a graph's input is no map."""

    def __init__(self, channels: int = C) -> None:
        super().__init__(4, H, W)
        self.map = self.conv("x", channels)

    def op(self, name: str, *inputs: str, **attributes) -> str:
        return self._node(name, inputs, 0, **attributes)

    def integers(self, *values: int) -> str:
        return self._weight(np.array(values, np.int64))

    def normal(self, *shape: int) -> str:
        return self._weight((RNG.normal(0, 1, shape) / math.sqrt(shape[0])).astype(np.float32))

    def reshape(self, x: str, *shape: int) -> str:
        return self.op("Reshape", x, self.integers(*shape))

    def turn(self, x: str, *axes: int) -> str:
        return self.op("Transpose", x, perm=axes)

    def tokens(self, x: str, channels: int = C) -> str:
        return self.turn(self.reshape(x, 1, channels, -1), 0, 2, 1)

    def back(self, x: str, channels: int = C) -> str:
        y = self.reshape(self.turn(x, 0, 2, 1), 1, channels, H, W)
        self.channels[y] = channels
        return y

    def linear(self, x: str, cin: int, cout: int) -> str:
        product = self.op("MatMul", x, self.normal(cin, cout))
        return self.op("Add", self._weight(RNG.normal(0, 1, cout).astype(np.float32)), product)

    def norm(self, x: str, channels: int = C) -> str:
        inputs = x, self.normal(channels), self.normal(channels)
        return self.op("LayerNormalization", *inputs, epsilon=1e-6)

    def gelu(self, x: str) -> str:
        erf = self.op("Erf", self.op("Div", x, self.number(math.sqrt(2))))
        return self.op(
            "Mul", self.op("Mul", x, self.op("Add", erf, self.number(1))), self.number(0.5)
        )

    def attend(self, q: str, k: str, v: str, scale: float) -> str:
        """Of heads (1, heads, tokens, width)."""
        scores = self.op("MatMul", q, self.turn(k, 0, 1, 3, 2))
        scores = self.op("Mul", scores, self.number(scale))
        return self.op("MatMul", self.op("Softmax", scores, axis=-1), v)


def check(net: Tokens, output: str, kernels: list[str], target: str = TARGETS[1]) -> None:
    model = net.model(output)
    assert [name for name in operations_of(model, target) if name.startswith("relax.")] == []
    assert [name for name in kernels_of(model, target) if name not in ("pack", "unpack")] == kernels
    assert max_error(model, target) < 1e-4


@pytest.mark.parametrize("target", TARGETS)
def test_transformer_block(target):
    """As SegFormer has it: keys and values in one product, from a smaller map."""
    net, heads = Tokens(), 2
    x = net.tokens(net.map)
    normed = net.norm(x)
    small = net.norm(net.tokens(net.conv(net.back(normed), C, 2, stride=2, pad=0)))
    q = net.turn(net.reshape(net.linear(normed, C, C), 1, N, heads, C // heads), 0, 2, 1, 3)
    both = net.reshape(net.linear(small, C, 2 * C), 1, N // 4, 2, heads, C // heads)
    both = net.turn(both, 2, 0, 3, 1, 4)
    k, v = (net.op("Gather", both, net._weight(np.array(i, np.int64)), axis=0) for i in (0, 1))
    mixed = net.turn(net.attend(q, k, v, 0.25), 0, 2, 1, 3)
    x = net.op("Add", x, net.linear(net.reshape(mixed, 1, N, C), C, C))
    hidden = net.gelu(net.linear(net.norm(x), C, 4 * C))
    x = net.op("Add", x, net.linear(hidden, 4 * C, C))
    kernels = [
        "pointwise", "channel_norm", "conv", "channel_norm", "pointwise", "pointwise", "pointwise",
        "attention", "pointwise", "channel_norm", "conv", "pointwise", "pointwise",
    ]  # fmt: skip
    model = net.model(net.conv(net.back(x), 8))
    assert sorted(n for n in operations_of(model, target) if "pack" not in n) == sorted(kernels)
    assert max_error(model, target) < 1e-4


def test_block_of_channels_last():
    """As ConvNeXt has it."""
    net = Tokens()
    x = net.norm(net.turn(net.map, 0, 2, 3, 1))
    y = net.linear(net.gelu(net.linear(x, C, 64)), 64, C)
    y = net.turn(net.op("Mul", net.normal(C), y), 0, 3, 1, 2)
    check(net, net.op("Add", net.map, y), ["pointwise", "channel_norm", "conv", "pointwise"])


def test_queries_keys_and_values_in_one_product():
    """As vision transformers have it, with positions added to the tokens."""
    net, heads = Tokens(), 2
    x = net.op("Add", net.tokens(net.map), net.normal(1, N, C))
    qkv = net.reshape(net.linear(x, C, 3 * C), 1, N, 3, heads, C // heads)
    qkv = net.turn(qkv, 2, 0, 3, 1, 4)
    q, k, v = (net.op("Gather", qkv, net._weight(np.array(i, np.int64)), axis=0) for i in range(3))
    mixed = net.reshape(net.turn(net.attend(q, k, v, 0.3), 0, 2, 1, 3), 1, N, C)
    model = net.model(net.back(net.linear(mixed, C, C)))
    names = kernels_of(model, TARGETS[0])
    assert names.count("attention") == 1
    assert names.count("pointwise") == 5
    assert max_error(model, TARGETS[0]) < 1e-4


def test_attention_of_maps():
    """As TopFormer has it."""
    net, heads = Tokens(), 4
    q, k, v = net.conv(net.map, 32), net.conv(net.map, 32), net.conv(net.map, 64)
    q = net.turn(net.reshape(q, 1, heads, 8, N), 0, 1, 3, 2)
    k = net.turn(net.reshape(k, 1, heads, 8, N), 0, 1, 3, 2)
    v = net.turn(net.reshape(v, 1, heads, 16, N), 0, 1, 3, 2)
    mixed = net.reshape(net.turn(net.attend(q, k, v, 0.35), 0, 1, 3, 2), 1, 64, H, W)
    output = net.op("Relu", mixed)
    check(net, output, ["pointwise", "pointwise", "pointwise", "pointwise", "attention"])


@pytest.mark.parametrize("axis", [1, 2])
def test_tokens_that_another_operator_reads(axis):
    """They are put in order there; sums along an axis of tokens are no channels' business."""
    net = Tokens()
    x = net.norm(net.tokens(net.map))
    y = net.op("CumSum", x, net._weight(np.array(axis, np.int64)))
    assert max_error(net.model(net.back(net.op("Add", x, y))), TARGETS[0]) < 2e-4


def test_tokens_are_the_result():
    net = Tokens()
    assert max_error(net.model(net.norm(net.tokens(net.map))), TARGETS[0]) < 1e-4


def test_some_channels_of_tokens():
    net = Tokens()
    wide = net.gelu(net.linear(net.tokens(net.map), C, 64))
    halves = [
        net.op("Slice", wide, *(net.integers(v) for v in (begin, end, 2)))
        for begin, end in ((0, 32), (32, 64))
    ]
    model = net.model(net.back(net.op("Mul", *halves)))
    assert max_error(model, TARGETS[0]) < 1e-4
    assert "relax.strided_slice" not in operations_of(model, TARGETS[0])


def cut(net, x, *bounds):
    return [
        net.op("Slice", x, *(net.integers(v) for v in (begin, end, 2)))
        for begin, end in pairwise(bounds)
    ]


def test_what_something_else_reads_is_computed_once():
    """Of a sum along a residual chain both halves are wanted, and the whole: they are cut out."""
    net = Tokens()
    x = net.op("Add", net.linear(net.tokens(net.map), C, C), net.linear(net.tokens(net.map), C, C))
    product = net.op("Mul", *cut(net, x, 0, 16, 32))
    wide = net.op("Add", x, net.linear(product, 16, C))
    model = net.model(net.back(wide))
    assert max_error(model, TARGETS[0]) < 1e-4
    operations = operations_of(model, TARGETS[0])
    assert operations.count("relax.strided_slice") == 0
    kernels = kernels_of(model, TARGETS[0])
    assert kernels.count("channel_slice") == 2, kernels
    assert kernels.count("pointwise") + kernels.count("conv") == 4, kernels


def test_tokens_of_several_windows_are_copied_to_a_map():
    """(windows, tokens, channels) is no order of the map that it was cut from here, as the rows of
    windows are mixed by an operator that is not known."""
    net = Tokens(64)
    x = net.turn(net.reshape(net.map, 1, 64, N), 0, 2, 1)
    x = net.op("CumSum", x, net._weight(np.array(1, np.int64)))
    x = net.reshape(x, 4, N // 4, 64)
    y = net.linear(net.gelu(net.linear(net.linear(x, 64, 64), 64, 96)), 96, 64)
    model = net.model(net.back(net.reshape(y, 1, N, 64), 64))
    assert max_error(model, TARGETS[0]) < 5e-4
    operations = operations_of(model, TARGETS[0])
    assert "relax.matmul" not in operations


def test_what_several_products_read_is_copied_once():
    net = Tokens(64)
    x = net.turn(net.reshape(net.map, 1, 64, N), 0, 2, 1)
    x = net.reshape(net.op("CumSum", x, net._weight(np.array(1, np.int64))), 4, N // 4, 64)
    y = net.op("Add", net.linear(x, 64, 64), net.linear(x, 64, 64))
    model = net.model(net.back(net.reshape(y, 1, N, 64), 64))
    assert max_error(model, TARGETS[0]) < 5e-4
    operations = operations_of(model, TARGETS[0])
    behind = operations[operations.index("relax.call_tir") :]
    assert behind.count("relax.permute_dims") == behind.count("pack") == 1, operations


SIZES = st.sampled_from([1, 2, 3, 4, 6, 8])


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.data())
def test_orders_are_followed(data):
    """Any row of reshapes and permutations, beside numpy's."""
    shape = 1, data.draw(SIZES), data.draw(SIZES), data.draw(SIZES)
    places, order = np.arange(math.prod(shape)).reshape(shape), order_of_map(*shape[1:])
    for _ in range(4):
        if data.draw(st.booleans()):
            axes = data.draw(st.permutations(range(places.ndim)))
            places, order = places.transpose(axes), tuple(order[axis] for axis in axes)
        else:
            new = data.draw(st.sampled_from(factorings(places.size)))
            after = reshaped(order, new)
            if after is None:
                continue
            places, order = places.reshape(new), after
        assert order == tidy(order)
        np.testing.assert_array_equal(made(order, shape, places.shape), places)


def factorings(size: int) -> list[tuple[int, ...]]:
    divisors = [d for d in range(1, size + 1) if size % d == 0]
    return [(a, b, size // a // b) for a in divisors for b in divisors if size % (a * b) == 0]


def made(order, shape, wanted):
    """The elements' places in the map, axis by axis and atom by atom."""
    pixels = shape[2] * shape[3]
    total = np.zeros((), np.int64)
    for axis in order:
        for atom in axis:
            step = atom.step * (pixels if atom.kind == "C" else 1)
            total = total[..., None] + np.arange(atom.size) * step
    return total.reshape(wanted)
