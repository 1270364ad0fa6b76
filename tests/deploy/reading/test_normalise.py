"""The steps behind the opsets: what is folded, left out or computed in another type."""

import sys

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from deploy.graph.importer import import_graph
from deploy.resolution import Resolution
from lut.errors import UserError
from tests.deploy.reading.files import Network, assert_same, normal_form, ops


def _batch_norm(network: Network, x: str, channels: int) -> str:
    variance = network.const(np.random.default_rng(3).uniform(0.1, 3, channels).astype(np.float32))
    statistics = (network.weights(channels) for _ in range(3))
    return network("BatchNormalization", x, *statistics, variance, epsilon=1e-3)


def test_batch_norm_is_folded_into_the_convolution_before_it():
    for groups in (1, 2):
        network = Network(15)
        y = _batch_norm(network, network("Conv", "x", network.weights(8, 3, 3, 3)), 8)
        y = network(
            "ConvTranspose", y, network.weights(8, 6 // groups, 2, 2), group=groups, strides=[2, 2]
        )
        normal = assert_same(network.model(_batch_norm(network, y, 6)))
        assert ops(normal) == ["Conv", "ConvTranspose"]


def test_batch_norm_behind_a_concatenation_goes_into_its_branches():
    network = Network(15)
    a = network("Conv", "x", network.weights(8, 3, 1, 1), network.weights(8))
    b = network("ConvTranspose", "x", network.weights(3, 4, 1, 1))
    normal = assert_same(network.model(_batch_norm(network, network("Concat", a, b, axis=1), 12)))
    assert ops(normal) == ["Conv", "ConvTranspose", "Concat"]


def test_batch_norm_elsewhere_is_a_scale_and_a_shift():
    network = Network(15)
    y = network("Conv", "x", network.weights(8, 3, 1, 1))
    pooled = network("GlobalAveragePool", y)
    before = _batch_norm(network, network("Concat", y, "x", axis=1), 11)
    flat = _batch_norm(network, network("Flatten", pooled), 8)
    twice = _batch_norm(network, y, 8)
    normal = assert_same(
        network.model(before, flat, twice, network("Relu", _batch_norm(network, "x", 3)))
    )
    assert ops(normal).count("Mul") == 4


def test_shape_arithmetic_is_gone():
    network = Network(13, ("n", 3, "h", "w"))
    y = network("Conv", "x", network.weights(4, 3, 3, 3), strides=[2, 2])
    shape = network("Shape", "x")
    sides = [network("Gather", shape, network.const(np.array(i))) for i in (2, 3)]
    scaled = [
        network(
            "Floor",
            network(
                "Div",
                network("Cast", s, to=TensorProto.DOUBLE),
                network.const(np.array(1.1, np.float64)),
            ),
        )
        for s in sides
    ]
    axes = network.const(np.array([0]))
    sides = [network("Unsqueeze", network("Cast", s, to=TensorProto.INT64), axes) for s in scaled]
    start = network(
        "Slice", network("Shape", y), network.const(np.array([0])), network.const(np.array([2]))
    )
    size = network("Concat", start, *sides, axis=0)
    normal = assert_same(
        network.model(network("Resize", y, "", "", size, mode="linear")), Resolution(22, 33)
    )
    assert ops(normal) == ["Conv", "Resize"]


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_other_floating_types_are_computed_in_float32(kind: int):
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    network = Network(15, element=kind)
    y = network("MatMul", "x", network.weights(12, 5, dtype=dtype))
    y = network("Clip", y, network.const(np.array(-0.5, dtype)), network.const(np.array(2, dtype)))
    y = network("Cast", network("Cast", y, to=TensorProto.FLOAT), to=kind)
    y = network(
        "Mul",
        y,
        network(
            "ConstantOfShape",
            network.const(np.array([1])),
            value=helper.make_tensor("v", kind, [1], [1.5]),
        ),
    )
    model = network.model(y)
    model.graph.output[0].type.tensor_type.elem_type = kind
    normal = assert_same(model, tolerance=1e-5 if kind == TensorProto.DOUBLE else 3e-3)
    assert normal.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    assert ops(normal) == ["MatMul", "Clip", "Mul"]


@pytest.mark.parametrize("kind", [TensorProto.BFLOAT16, TensorProto.DOUBLE])
def test_files_that_onnxruntime_has_no_convolutions_for_are_float32_files(kind: int):
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    network = Network(15, element=kind)
    weights = np.random.default_rng(4).standard_normal((4, 3, 3, 3)).astype(dtype)
    y = network("Conv", "x", network.const(weights))
    y = network("Mul", y, network("Cast", network.const(2.0), to=kind))
    model = network.model(y)
    model.graph.output[0].type.tensor_type.elem_type = kind
    normal = assert_same(model)
    (found,) = (t for t in normal.graph.initializer if len(t.dims) == 4)
    np.testing.assert_array_equal(numpy_helper.to_array(found), weights.astype(np.float32))


def test_an_image_and_weights_of_integers_stay():
    network = Network(17, (1, 8, 12, 3), TensorProto.UINT8)
    y = network("Transpose", network("Cast", "x", to=1), perm=[0, 3, 1, 2])
    normal = assert_same(network.model(network("Conv", y, network.weights(4, 3, 1, 1))))
    assert normal.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8


def test_a_resize_of_a_constant_is_a_constant():
    network = Network(11)
    empty = network.const(np.zeros(0, np.float32))
    size = network.const(np.array([1, 3, 8, 12]))
    y = network("Resize", network.weights(1, 3, 5, 5), empty, empty, size, mode="linear")
    assert ops(assert_same(network.model(network("Add", "x", y)))) == ["Add"]


def test_functions_of_a_file_are_written_out():
    network = Network(17)
    network.functions.append(
        helper.make_function(
            "own",
            "twice",
            ["a"],
            ["b"],
            [helper.make_node("Add", ["a", "a"], ["s"]), helper.make_node("Relu", ["s"], ["b"])],
            [helper.make_opsetid("", 17)],
        )
    )
    y = network("twice", network("twice", "x", domain="own"), domain="own")
    assert ops(assert_same(network.model(y))) == ["Add", "Relu"] * 2


def test_outputs_keep_their_names_whatever_they_come_from():
    network = Network(17)
    y = network("Identity", network("Relu", "x"))
    z = network("Dropout", y)
    same = network("Identity", "x")
    constant = network("Add", network.const([1.0, 2.0]), network.const(1.0))
    assert_same(network.model(y, z, same, constant))


def test_what_takes_too_much_memory_is_refused_before_it_is_made():
    bombs = [
        lambda n: n("Add", "x", n("Range", n.const(0), n.const(1 << 40), n.const(1))),
        lambda n: n("Add", "x", n("ConstantOfShape", n.const(np.array([1 << 20, 1 << 20])))),
        lambda n: n("Add", "x", n("Expand", n.const(1.0), n.const(np.array([1 << 40])))),
        lambda n: n("Expand", "x", n.const(np.array([1 << 30, 3, 8, 12]))),
        lambda n: n("Tile", "x", n.const(np.array([1, 1, 1 << 20, 1 << 20]))),
        lambda n: n("Pad", "x", n.const(np.array([0, 0, 1 << 30, 1 << 30, 0, 0, 0, 0]))),
        lambda n: n("Resize", "x", "", n.const([1.0, 1.0, 1e6, 1e6]), mode="nearest"),
    ]
    for bomb in bombs:
        network = Network(13)
        with pytest.raises(UserError, match=r"node '\w+_\d': .*(TB|GB)"):
            normal_form(network.model(bomb(network)))


def _chain(blocks: int):
    """Of five nodes each, one of which is folded, and one sum over all of them."""
    network, y, parts = Network(15), "x", []
    for _ in range(blocks):
        y = _batch_norm(network, network("Conv", y, network.weights(3, 3, 1, 1)), 3)
        y = network("Add", network("HardSigmoid", y), network("Relu", y))
        parts.append(y)
    return network.model(network("Sum", *parts))


def _lines(work) -> int:
    """Of Python in `deploy` that ran; each turn of a loop counts."""
    count = 0

    def trace(frame, event, _argument):
        nonlocal count
        count += event == "line"
        return trace if "/deploy/" in frame.f_code.co_filename else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def test_the_work_grows_with_the_nodes_and_no_faster():
    small, large = (_chain(blocks) for blocks in (20, 80))  # 100 and 400 nodes
    few = _lines(lambda: normal_form(small))
    assert few > 1000
    assert _lines(lambda: normal_form(large)) < 4 * 1.25 * few
    few = _lines(lambda: import_graph(normal_form(small)))
    assert _lines(lambda: import_graph(normal_form(large))) < 4 * 1.25 * few
