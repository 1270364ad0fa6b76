"""Unpooling by masks, adaptive pools as matrices, Transposes that cancel."""

import numpy as np
import pytest
from onnx import TensorProto

from lut.errors import UserError
from tests.deploy.reading.files import RNG, Network, assert_same, normal_form, ops


def _ties(height: int, width: int) -> np.ndarray:
    """Small whole numbers, so that windows have several largest ones."""
    return RNG.integers(-1, 2, (1, 3, height, width)).astype(np.float32)


@pytest.mark.parametrize(("size", "kernel"), [((8, 12), 2), ((9, 13), 2), ((9, 12), 3)])
def test_unpooling_by_masks_is_exact_at_ties_too(size: tuple[int, int], kernel: int):
    network = Network(11, (1, 3, *size))
    square = {"kernel_shape": [kernel, kernel], "strides": [kernel, kernel]}
    x = network("Relu", "x")
    y, indices = network("MaxPool", x, outputs=2, **square)
    y = network("Conv", y, network.weights(3, 3, 1, 1))
    shape = network.const(np.array([1, 3, *size]))
    y = network("MaxUnpool", y, indices, shape, **square)
    normal = assert_same(network.model(y), image=_ties(*size), tolerance=0)
    assert "MaxUnpool" not in ops(normal)
    assert all(len(node.output) == 1 for node in normal.graph.node if node.op_type == "MaxPool")


def test_a_scatter_by_a_pools_indices_is_an_unpooling():
    network = Network(13)
    y, indices = network("MaxPool", "x", outputs=2, kernel_shape=[2, 2], strides=[2, 2])
    # torch's exporter: places in each plane, the planes' own first, then one row of all numbers.
    _, ones = network("MaxPool", "x", outputs=2, kernel_shape=[1, 1], strides=[1, 1])
    corner = network("Slice", ones, *(network.const(np.array(v)) for v in ([0, 0], [1, 1], [2, 3])))
    within = network("Sub", indices, corner)
    planes = network.const(np.arange(3).reshape(1, 3, 1, 1) * 96)
    flat = network.const(np.array([-1]))
    places = network(
        "Unsqueeze",
        network("Reshape", network("Add", within, planes), flat),
        network.const(np.array([-1])),
    )
    zeros = network("ConstantOfShape", network.const(np.array([288])))
    z = network("ScatterND", zeros, places, network("Reshape", y, flat))
    z = network("Reshape", z, network.const(np.array([1, 3, 8, 12])))
    # As code by hand does it: each plane a row.
    rows = network.const(np.array([1, 3, -1]))
    empty = network("ConstantOfShape", network.const(np.array([1, 3, 96])))
    w = network(
        "ScatterElements",
        empty,
        network("Reshape", within, rows),
        network("Reshape", y, rows),
        axis=2,
    )
    normal = assert_same(network.model(z, w), image=_ties(8, 12), tolerance=0)
    assert not {"ScatterND", "ScatterElements"} & set(ops(normal))


@pytest.mark.parametrize("kind", ["overlap", "another size", "an output"])
def test_indices_that_are_not_unpooled_are_refused(kind: str):
    network = Network(11)
    kernel = [3, 3] if kind == "overlap" else [2, 2]
    y, indices = network("MaxPool", "x", outputs=2, kernel_shape=kernel, strides=[2, 2])
    if kind == "an output":
        y = network("Mul", y, network("Cast", indices, to=TensorProto.FLOAT))
    elif kind == "another size":
        shape = network.const(np.array([1, 3, 10, 14]))
        y = network("MaxUnpool", y, indices, shape, kernel_shape=kernel, strides=[2, 2])
    else:
        y = network("MaxUnpool", y, indices, kernel_shape=kernel, strides=[2, 2])
    with pytest.raises(UserError, match="MaxPool"):
        normal_form(network.model(y))


def _bins(side: int, parts: int) -> list[tuple[int, int]]:
    return [(i * side // parts, -(-(i + 1) * side // parts)) for i in range(parts)]


def test_an_adaptive_pool_of_slices_is_two_matrices():
    network = Network(13, (1, 3, 11, 14))
    x = network("Relu", "x")
    rows = []
    for top, bottom in _bins(11, 3):
        cells = []
        for left, right in _bins(14, 4):
            bounds = ([top, left], [bottom, right], [2, 3])
            cell = network("Slice", x, *(network.const(np.array(b)) for b in bounds))
            cells.append(network("ReduceMean", cell, axes=[2, 3]))
        rows.append(network("Concat", *cells, axis=3))
    normal = assert_same(network.model(network("Concat", *rows, axis=2)))
    assert ops(normal) == ["Relu", "MatMul", "MatMul"]


def test_an_adaptive_pool_of_gathers_is_two_matrices():
    network = Network(17, (1, 3, 10, 15))
    last = network("Transpose", "x", perm=[2, 3, 0, 1])
    grid = np.stack(
        np.meshgrid(np.arange(10).reshape(2, 5), np.arange(15).reshape(3, 5), indexing="ij"), -1
    )
    places = network.const(grid.reshape(2, 5, 3, 5, 2).astype(np.int64))
    y = network("Transpose", network("GatherND", last, places), perm=[4, 5, 0, 1, 2, 3])
    normal = assert_same(network.model(network("ReduceMean", y, axes=[3, 5], keepdims=0)))
    assert ops(normal) == ["MatMul", "MatMul"]


def test_what_is_no_pool_stays():
    network = Network(13, (1, 3, 12, 12))
    turned = network("Transpose", "x", perm=[0, 1, 3, 2])  # mixes rows and columns
    y = network(
        "Add",
        network("Slice", turned, *(network.const(np.array(v)) for v in ([0], [6], [2]))),
        network("Slice", "x", *(network.const(np.array(v)) for v in ([0], [6], [2]))),
    )
    assert "MatMul" not in ops(assert_same(network.model(y)))


def test_transposes_around_operators_cancel():
    network = Network(13, (1, 8, 12, 3))
    x = network("Transpose", "x", perm=[0, 3, 1, 2])
    y = network("Transpose", network("Conv", x, network.weights(4, 3, 1, 1)), perm=[0, 2, 3, 1])
    y = network("Relu", network("Add", y, network.weights(4)))
    z = network("Mul", network("Sigmoid", y), y)
    z = network("Concat", z, network("Mul", y, network.const(0.5)), axis=3)
    z = network("Pad", z, network.const(np.array([0, 1, 2, 0, 0, 3, 0, 2])))
    z = network("Slice", z, *(network.const(np.array(v)) for v in ([1, 0], [9, 13], [1, 2])))
    a, b = network("Split", z, outputs=2, axis=-1)
    pooled = network("ReduceMean", b, axes=[1, 2], keepdims=0)
    c = network("Conv", network("Transpose", a, perm=[0, 3, 1, 2]), network.weights(2, 5, 1, 1))
    c = network("Softmax", network("Transpose", c, perm=[0, 2, 3, 1]), axis=-1)
    normal = assert_same(network.model(c, pooled))
    assert ops(normal).count("Transpose") == 2


def test_transposes_that_do_not_cancel_are_no_more_than_before():
    network = Network(13, (1, 8, 12, 3))
    y = network("Transpose", "x", perm=[0, 3, 1, 2])
    ends = [
        network("Reshape", network(op, y), network.const(np.array([3, -1])))
        for op in ("Relu", "Abs")
    ]
    assert ops(assert_same(network.model(*ends))).count("Transpose") == 1
