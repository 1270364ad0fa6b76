"""Quantised files mean in float32 what they mean in integers."""

import numpy as np
import pytest

from tests.deploy.reading.files import RNG, Network, assert_same, ops


def _quantise(
    network: Network, x: str, scale: float = 0.02, zero: int = 128
) -> tuple[str, str, str]:
    names = network.const(np.float32(scale)), network.const(np.uint8(zero))
    return network("QuantizeLinear", x, *names), *names


@pytest.mark.parametrize("kind", [np.int8, np.uint8])
def test_a_quantised_convolution_is_exact(kind: type):
    network = Network(13)
    x, scale, zero = _quantise(network, "x")
    info = np.iinfo(kind)
    # Half of the range: without VNNI, onnxruntime adds two products in 16 bits, which saturate.
    w = network.const(RNG.integers(info.min // 2, info.max // 2, (4, 3, 3, 3)).astype(kind))
    w_scale = network.const(RNG.uniform(0.001, 0.01, 4).astype(np.float32))
    w_zero = network.const(np.full(4, 0 if kind is np.int8 else 120, kind))
    y_scale, y_zero = network.const(np.float32(0.05)), network.const(np.uint8(100))
    bias = network.const(RNG.integers(-500, 500, 4).astype(np.int32))
    y = network(
        "QLinearConv",
        x,
        scale,
        zero,
        w,
        w_scale,
        w_zero,
        y_scale,
        y_zero,
        bias,
        pads=[1, 1, 1, 1],
        strides=[2, 1],
    )
    y = network("MaxPool", y, kernel_shape=[2, 2], strides=[1, 1])
    y = network("DequantizeLinear", y, y_scale, y_zero)
    normal = assert_same(network.model(y), tolerance=0)
    assert "QLinearConv" not in ops(normal)


def test_quantised_products_are_exact():
    network = Network(13, (1, 6, 8))
    x, scale, zero = _quantise(network, "x", 0.03, 120)
    b = network.const(RNG.integers(-64, 63, (8, 5)).astype(np.int8))
    y_scale, y_zero = network.const(np.float32(0.1)), network.const(np.uint8(130))
    y = network(
        "QLinearMatMul",
        x,
        scale,
        zero,
        b,
        network.const(np.float32(0.01)),
        network.const(np.int8(3)),
        y_scale,
        y_zero,
    )
    y = network("DequantizeLinear", y, y_scale, y_zero)
    z = network("MatMulInteger", x, b, zero, network.const(np.int8(-2)))
    assert_same(network.model(y, network("Cast", z, to=1)), tolerance=0)
    network = Network(13)
    x, scale, zero = _quantise(network, "x")
    w = network.const(RNG.integers(0, 255, (4, 3, 3, 3)).astype(np.uint8))
    y = network("ConvInteger", x, w, zero, network.const(np.uint8(90)), pads=[1, 1, 1, 1])
    assert_same(network.model(network("Cast", y, to=1)), tolerance=0)


def test_pairs_of_quantise_and_dequantise():
    network = Network(13)
    x, scale, zero = _quantise(network, "x")
    x = network("DequantizeLinear", x, scale, zero)
    w = network.const(RNG.integers(-128, 127, (4, 3, 3, 3)).astype(np.int8))
    w_scale = network.const(RNG.uniform(0.001, 0.01, 4).astype(np.float32))
    w = network("DequantizeLinear", w, w_scale, network.const(np.zeros(4, np.int8)), axis=0)
    bias = network.const(RNG.integers(-500, 500, 4).astype(np.int32))
    bias = network("DequantizeLinear", bias, w_scale, axis=0)
    y = network("Relu", network("Conv", x, w, bias))
    y, scale, zero = _quantise(network, y, 0.1, 0)
    normal = assert_same(network.model(network("DequantizeLinear", y, scale, zero)), tolerance=0)
    assert ops(normal) == [
        "QuantizeLinear",
        "DequantizeLinear",
        "Conv",
        "Relu",
        "QuantizeLinear",
        "DequantizeLinear",
    ]


@pytest.mark.parametrize("kind", [np.int8, np.int16, np.uint16])
def test_channels_with_scales_of_their_own_and_sixteen_bits(kind: type):
    network = Network(21)
    scale = network.const(np.array([0.01, 0.02, 0.005], np.float32))
    zero = network.const(np.array([3, 0, 100], kind))
    x = network("QuantizeLinear", "x", scale, zero, axis=1)
    assert_same(network.model(network("DequantizeLinear", x, scale, zero, axis=1)), tolerance=0)


def test_onnxruntimes_own_quantised_operators():
    network = Network(13)
    x, scale, zero = _quantise(network, "x")
    own = {"domain": "com.microsoft"}
    y_scale, y_zero = network.const(np.float32(0.04)), network.const(np.uint8(110))
    a = network("QLinearAdd", x, scale, zero, x, scale, zero, y_scale, y_zero, **own)
    m = network("QLinearMul", a, y_scale, y_zero, x, scale, zero, y_scale, y_zero, **own)
    s_scale, s_zero = network.const(np.float32(1 / 256)), network.const(np.uint8(0))
    s = network("QLinearSigmoid", m, y_scale, y_zero, s_scale, s_zero, **own)
    c = network(
        "QLinearConcat", y_scale, y_zero, s, s_scale, s_zero, a, y_scale, y_zero, axis=1, **own
    )
    g = network("QLinearGlobalAveragePool", c, y_scale, y_zero, y_scale, y_zero, **own)
    ends = [network("DequantizeLinear", t, y_scale, y_zero) for t in (m, c, g)]
    assert_same(network.model(*ends), tolerance=0.02)  # a step of the grid, where a half is rounded
