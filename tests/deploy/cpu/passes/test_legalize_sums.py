"""Sums over many numbers: as near to the truth as float32 goes, whatever the sizes."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from deploy.graph.importer import import_graph
from tests.deploy.graph.importer.library import Library
from tests.deploy.graphs import model_of

SHAPE = (2, 3, 47, 96)
# Of an input: the operator, the axes, and whether they are kept.
SUMS = {
    f"{op} {axes} {keepdims}": (op, axes, keepdims)
    for op in ("ReduceSum", "ReduceMean", "ReduceL2")
    for axes in ((2, 3), (3,), (0, 2), (0, 1, 2, 3))
    for keepdims in (0, 1)
}


def model(op: str, axes: tuple[int, ...], keepdims: int) -> onnx.ModelProto:
    return model_of(
        [helper.make_node(op, ["x", "axes"], ["y"], keepdims=keepdims)],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [helper.make_empty_tensor_value_info("y")],
        {"axes": np.array(axes, np.int64)},
        20,
    )


LENGTHS = (255, 256, 1000, 1021)
AXES = (0, 2, 3)


def product(length: int) -> onnx.ModelProto:
    return model_of(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 1, 7, length])],
        [helper.make_empty_tensor_value_info("y")],
        {"w": drawn(3, length, 9)},
        20,
    )


def wide_product() -> onnx.ModelProto:
    """More multiply-adds than a copy is worth, and a column more than vectors hold."""
    return model_of(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 65, 70])],
        [helper.make_empty_tensor_value_info("y")],
        {"w": drawn(3, 70, 65)},
        20,
    )


def softmax(axis: int) -> onnx.ModelProto:
    return model_of(
        [helper.make_node("Softmax", ["x"], ["y"], axis=axis)],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [helper.make_empty_tensor_value_info("y")],
        {},
        20,
    )


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(0.1, 1, shape).astype(np.float32)


def imported(graph: onnx.ModelProto):
    return import_graph(onnx.shape_inference.infer_shapes(graph, strict_mode=True))


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    graphs = {name: model(*form) for name, form in SUMS.items()}
    graphs |= {f"MatMul {length}": product(length) for length in LENGTHS}
    graphs |= {f"Softmax {axis}": softmax(axis) for axis in AXES}
    graphs["wide"] = wide_product()
    return Library(
        {name: imported(graph) for name, graph in graphs.items()}, tmp_path_factory.mktemp("sums")
    )


@pytest.mark.parametrize("form", SUMS)
@pytest.mark.parametrize("what", ["equal", "drawn"])
def test_a_sum_is_the_truth_but_for_a_few_roundings(library, form, what):
    """Equal numbers all round alike: one after the other they would be off by hundreds."""
    op, axes, keepdims = SUMS[form]
    x = np.full(SHAPE, 0.7, np.float32)
    if what == "drawn":
        x = drawn(*SHAPE)
    (found,) = library.run(form, [x])
    numbers = x.astype(np.float64) ** (2 if op == "ReduceL2" else 1)
    wanted = numbers.mean if op == "ReduceMean" else numbers.sum
    truth = wanted(axis=axes, keepdims=bool(keepdims))
    truth = np.sqrt(truth) if op == "ReduceL2" else truth
    assert found.shape == truth.shape
    np.testing.assert_allclose(found, truth, rtol=24 * 2.0**-24)


@pytest.mark.parametrize("length", LENGTHS)
def test_a_product_of_matrices(library, length):
    x, w = drawn(2, 1, 7, length), drawn(3, length, 9)
    (found,) = library.run(f"MatMul {length}", [x])
    truth = x.astype(np.float64) @ w.astype(np.float64)
    assert found.shape == truth.shape
    np.testing.assert_allclose(found, truth, rtol=(64 if length < 256 else 24) * 2.0**-24)


def test_a_product_with_columns_left_over(library):
    x, w = drawn(2, 3, 65, 70), drawn(3, 70, 65)
    (found,) = library.run("wide", [x])
    truth = x.astype(np.float64) @ w.astype(np.float64)
    np.testing.assert_allclose(found, truth, rtol=64 * 2.0**-24)


@pytest.mark.parametrize("axis", AXES)
def test_a_softmax(library, axis):
    x = np.log(drawn(*SHAPE))
    (found,) = library.run(f"Softmax {axis}", [x])
    powers = np.exp(x.astype(np.float64))
    np.testing.assert_allclose(found, powers / powers.sum(axis, keepdims=True), rtol=2e-6)


def test_sums_of_whole_numbers_stay_whole(tmp_path):
    graph = model("ReduceSum", (2, 3), 0)
    graph.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    x = np.random.default_rng(0).integers(-(2**40), 2**40, SHAPE)
    (found,) = Library({"sum": imported(graph)}, tmp_path).run("sum", [x])
    np.testing.assert_array_equal(found, x.sum(axis=(2, 3)))
