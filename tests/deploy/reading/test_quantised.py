"""Quantised files mean in float32 what they mean in integers."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from lut.errors import UserError
from tests.deploy.reading.files import RNG, Network, assert_same, normal_form, ops


def _quantise(
    network: Network, x: str, scale: float = 0.02, zero: int = 128
) -> tuple[str, str, str]:
    names = network.const(np.float32(scale)), network.const(np.uint8(zero))
    return network("QuantizeLinear", x, *names), *names


def test_products_of_integers_are_exact():
    network = Network(13, (1, 6, 8))
    x, _, zero = _quantise(network, "x", 0.03, 120)
    b = network.const(RNG.integers(-64, 63, (8, 5)).astype(np.int8))
    z = network("MatMulInteger", x, b, zero, network.const(np.int8(-2)))
    assert_same(network.model(network("Cast", z, to=1)), tolerance=0)
    network = Network(13)
    x, _, zero = _quantise(network, "x")
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


@pytest.mark.parametrize(
    ("scale", "zero", "axis", "message"),
    [
        (np.float32(0), np.uint8(3), 1, "a scale of 0; quantise the network anew"),
        (np.float32(-0.1), np.uint8(3), 1, "a scale of -0.1"),
        (np.float32(np.inf), np.uint8(3), 1, "a scale of inf"),
        (np.float32(1e-40), np.uint8(3), 1, "a scale of 9.99995e-41"),
        (np.float32(np.nan), np.uint8(3), 1, "are NaN"),
        (np.full(3, 0.1, np.float32), np.zeros(2, np.uint8), 1, "2 zero points in uint8 for 3"),
        (np.full(3, 0.1, np.float32), np.zeros(3, np.uint8), 2, "3 scales along axis 2 of a map"),
        (np.full(3, 0.1, np.float32), np.zeros(3, np.uint8), 7, "3 scales along axis 7 of a map"),
        (np.float32(0.1), np.int32(300), 1, "numbers of int32 are not read"),
    ],
)
def test_scales_of_no_grid_are_refused(scale, zero, axis: int, message: str):
    network = Network(17)
    names = network.const(scale), network.const(zero)
    y = network("QuantizeLinear", "x", *names, axis=axis)
    with pytest.raises(UserError, match=message):
        normal_form(network.model(network("Cast", y, to=1)))


def test_scales_of_each_image_are_refused():
    network = Network(17)
    y, *_ = network("DynamicQuantizeLinear", "x", outputs=3)
    with pytest.raises(UserError, match="it finds a scale for each image; quantise the network st"):
        normal_form(network.model(network("Cast", y, to=1)))


@pytest.mark.parametrize(
    ("element", "scale", "attributes"),
    [
        (TensorProto.INT4, (4,), {"axis": 0}),
        (TensorProto.UINT4, (), {}),
        (TensorProto.INT4, (4, 3, 1, 1), {"axis": 1, "block_size": 2}),
        (TensorProto.INT8, (4, 3, 1, 1), {"axis": 1, "block_size": 2}),
    ],
)
def test_weights_of_4_bits_and_of_blocks(element: int, scale: tuple, attributes: dict):
    network = Network(21, (1, 6, 8, 12), ir_version=10)
    low = 0 if element == TensorProto.UINT4 else -8
    codes = helper.make_tensor("w4", element, (4, 6, 1, 1), RNG.integers(low, 8, 24).tolist())
    network.constants.append(codes)
    scales = network.const(RNG.uniform(0.01, 0.1, scale).astype(np.float32))
    w = network("DequantizeLinear", "w4", scales, **attributes)
    normal = assert_same(network.model(network("Conv", "x", w)))
    assert ops(normal) == ["Conv"]
