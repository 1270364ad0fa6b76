"""What moves bytes is read as what moves floats between pairs: the same numbers."""

import numpy as np
import pytest
from onnx import TensorProto

from tests.deploy.reading.files import Network, assert_same, ops

PAIR = ["QuantizeLinear", "DequantizeLinear"]


def moved(kind: type, zero: int, op: str, *more: object, opset: int = 17, **attributes: object):
    """A file that quantises, moves the bytes, and reads them; the input is noise."""
    network = Network(opset)
    scale, zero_point = network.const(np.float32(0.02)), network.const(kind(zero))
    x = network("QuantizeLinear", "x", scale, zero_point)
    constants = [value if isinstance(value, str) else network.const(value) for value in more]
    y = network(op, x, *constants, **attributes)
    return network.model(network("DequantizeLinear", y, scale, zero_point))


@pytest.mark.parametrize(("kind", "zero"), [(np.uint8, 120), (np.int8, -5)])
@pytest.mark.parametrize(
    ("op", "more", "attributes"),
    [
        ("MaxPool", (), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]}),
        ("Reshape", (np.array([1, 6, 4, 12]),), {}),
        ("Transpose", (), {"perm": [0, 1, 3, 2]}),
        ("Slice", (np.array([1]), np.array([5]), np.array([2])), {}),
        ("Pad", (np.array([0, 0, 1, 2, 0, 0, 3, 0]),), {}),
        ("DepthToSpace", (), {"blocksize": 1}),
        ("Resize", ("", np.array([1, 1, 2, 2], np.float32)), {"mode": "nearest"}),
        # The fraction is left away, as onnxruntime does.
        ("Resize", ("", np.array([1, 1, 2, 2], np.float32)), {"mode": "linear"}),
        ("Resize", ("", np.array([1, 1, 4, 1], np.float32)),
         {"mode": "linear", "coordinate_transformation_mode": "asymmetric"}),
        ("Resize", ("", np.array([1, 1, 0.5, 0.5], np.float32)), {"mode": "linear"}),
    ],
)  # fmt: skip
def test_the_same_numbers(kind: type, zero: int, op: str, more: tuple, attributes: dict) -> None:
    normal = assert_same(moved(kind, zero, op, *more, **attributes), tolerance=1e-6)
    found = ops(normal)
    assert found[:2] == PAIR
    assert found[-2:] == PAIR
    assert not any(
        value.type.tensor_type.elem_type in (TensorProto.INT8, TensorProto.UINT8)
        for node in normal.graph.node
        if node.op_type not in PAIR
        for value in normal.graph.value_info
        if value.name in node.output
    )


def test_a_pad_by_a_number_and_parts_and_a_concatenation() -> None:
    network = Network(17, (1, 4, 8, 12))
    scale, zero = network.const(np.float32(0.02)), network.const(np.uint8(7))
    x = network("QuantizeLinear", "x", scale, zero)
    pads = network.const(np.array([0, 0, 1, 1, 0, 0, 1, 1]))
    padded = network("Pad", x, pads, network.const(np.uint8(200)))
    a, b = network("Split", padded, network.const(np.array([1, 3])), outputs=2, axis=1)
    y = network("Concat", b, a, b, axis=1)
    normal = assert_same(network.model(network("DequantizeLinear", y, scale, zero)), tolerance=0)
    assert ops(normal).count("QuantizeLinear") == 5


def test_labels_of_bytes_are_labels_of_floats() -> None:
    network = Network(17)
    scale, zero = network.const(np.float32(0.1)), network.const(np.uint8(128))
    x = network("QuantizeLinear", "x", scale, zero)
    normal = assert_same(network.model(network("Cast", network("ArgMax", x, axis=1), to=1)),
                         tolerance=0)  # fmt: skip
    assert ops(normal) == [*PAIR, "ArgMax", "Cast"]


def test_bytes_of_two_scales_stay() -> None:
    network = Network(17)
    zero = network.const(np.uint8(128))
    scales = [network.const(np.float32(scale)) for scale in (0.02, 0.05)]
    parts = [network("QuantizeLinear", "x", scale, zero) for scale in scales]
    y = network("Concat", *parts, axis=1)
    normal = assert_same(network.model(network("DequantizeLinear", y, scales[0], zero)),
                         tolerance=0)  # fmt: skip
    assert ops(normal) == ["QuantizeLinear", "QuantizeLinear", "Concat", "DequantizeLinear"]
