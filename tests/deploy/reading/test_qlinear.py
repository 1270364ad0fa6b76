"""Operators of integers are read as those of floats between pairs, to a quantum."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from deploy.graph.reference import OnnxSession
from lut.errors import UserError
from tests.deploy.quantised_networks import WAYS, Way, given, last_quantum, network, quantised
from tests.deploy.reading.files import RNG, Network, assert_same, normal_form, ops


def quantise(
    network: Network, x: str, scale: float = 0.02, zero: int = 128
) -> tuple[str, str, str]:
    names = network.const(np.float32(scale)), network.const(np.uint8(zero))
    return network("QuantizeLinear", x, *names), *names


@pytest.mark.parametrize("kind", [np.int8, np.uint8])
def test_a_quantised_convolution_is_exact(kind: type):
    network = Network(13)
    x, scale, zero = quantise(network, "x")
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
    x, scale, zero = quantise(network, "x", 0.03, 120)
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
    normal = assert_same(network.model(y), tolerance=0.02)
    assert "QLinearMatMul" not in ops(normal)


def test_onnxruntimes_own_quantised_operators():
    network = Network(13)
    x, scale, zero = quantise(network, "x")
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


@pytest.mark.parametrize("way", [way for way in WAYS if way.form == "QOperator"], ids=str)
@pytest.mark.parametrize("resize", ["nearest", "linear"])
def test_a_network_by_onnxruntimes_tool(way: Way, resize: str, tmp_path: Path) -> None:
    """Every map that is read is on its grid, and numbers are those of the file but for ties."""
    file = quantised(network(resize), way, tmp_path)
    normal = normal_form(file)
    assert sum(node.op_type.startswith("QLinear") for node in file.graph.node) > 12
    makers = {name: node.op_type for node in normal.graph.node for name in node.output}
    read = [n.input[0] for n in normal.graph.node if n.op_type == "DequantizeLinear"]
    assert {makers[name] for name in read} == {"QuantizeLinear"}
    assert not any(node.domain for node in normal.graph.node)
    wanted, found = (
        OnnxSession(model, optimised=False).run_batch(given(9))[0] for model in (file, normal)
    )
    off = np.rint(np.abs(found - wanted) / last_quantum(file))
    assert off.max() <= 1
    assert (off > 0).mean() < 2e-2


def test_softmax_gemm_and_a_choice() -> None:
    model = Network(17, (1, 6))
    own = {"domain": "com.microsoft"}
    x, scale, zero = quantise(model, "x", 0.03, 120)
    b = model.const(RNG.integers(-64, 63, (5, 6)).astype(np.int8))
    b_scale = model.const(RNG.uniform(0.001, 0.02, 5).astype(np.float32))
    b_zero = model.const(np.zeros(5, np.int8))
    bias = model.const(RNG.integers(-900, 900, 5).astype(np.int32))
    y_scale, y_zero = model.const(np.float32(0.02)), model.const(np.uint8(130))
    inputs = [x, scale, zero, b, b_scale, b_zero, bias]
    y = model("QGemm", *inputs, y_scale, y_zero, transB=1, alpha=1.0, **own)
    s_scale, s_zero = model.const(np.float32(1 / 256)), model.const(np.uint8(0))
    s = model("QLinearSoftmax", y, y_scale, y_zero, s_scale, s_zero, axis=1, opset=13, **own)
    wide = model("QGemm", *inputs, transB=1, alpha=1.0, **own)
    chosen = model("Greater", wide, model.const(np.float32(0)))
    w = model("QLinearWhere", chosen, y, y_scale, y_zero, s, s_scale, s_zero, y_scale, y_zero,
              **own)  # fmt: skip
    ends = [model("DequantizeLinear", t, *names)
            for t, names in ((s, (s_scale, s_zero)), (w, (y_scale, y_zero)))]  # fmt: skip
    normal = assert_same(model.model(*ends, wide), tolerance=0.01)
    assert not any(node.domain for node in normal.graph.node)


def changed(file: onnx.ModelProto, index: int, value: np.ndarray) -> onnx.ModelProto:
    """With another constant for the first QLinearConv's input at this index."""
    node = next(n for n in file.graph.node if n.op_type == "QLinearConv")
    node.input[index] = "changed"
    file.graph.initializer.append(numpy_helper.from_array(np.asarray(value), "changed"))
    return file


@pytest.mark.parametrize(
    ("index", "value", "message"),
    [
        (1, np.float32(0), "a scale of 0; quantise the network anew"),
        (1, np.float32(-1), "a scale of -1"),
        (4, np.full(8, np.inf, np.float32), "a scale of inf"),
        (6, np.float32(np.nan), "are NaN"),
        (1, np.full(3, 0.1, np.float32), "1 zero points in uint8 for 3 scales"),
        (4, np.full(3, 0.1, np.float32), "3 scales and 8 zero points in int8 for weights of 8"),
        (5, np.zeros(8, np.uint8), "8 zero points in uint8 for weights of 8 outputs in int8"),
        (2, np.int8(0), "1 zero points in int8 for 1 scales of a map in uint8"),
        (2, np.int32(300), "1 zero points in int32 for 1 scales of a map in uint8"),
        (8, np.zeros(8, np.float32), "its bias is of float32, not of int32"),
        (8, np.zeros(3, np.int32), r"a bias of shape \(3,\) for weights of 8 outputs"),
        (8, np.zeros(1, np.int32), r"a bias of shape \(1,\) for weights of 8 outputs"),
        (3, np.int8(1), "its weights have 0 axes"),
    ],
)
def test_what_is_wrong_is_one_line(
    index: int, value: np.ndarray, message: str, tmp_path: Path
) -> None:
    file = quantised(network(), Way("QOperator"), tmp_path)
    with pytest.raises(UserError, match=message) as raised:
        normal_form(changed(file, index, value))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("op", ["QLinearConv", "QLinearAdd", "QLinearConcat"])
@pytest.mark.parametrize("many", [0, 1, 2, 3])
def test_too_few_inputs_are_one_line(op: str, many: int, tmp_path: Path) -> None:
    file = quantised(network(), Way("QOperator"), tmp_path)
    node = next(n for n in file.graph.node if n.op_type == op)
    del node.input[many:]
    with pytest.raises(UserError, match="node 'node_") as raised:
        normal_form(file)
    assert "\n" not in str(raised.value)
