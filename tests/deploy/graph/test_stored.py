"""Pairs of QuantizeLinear and DequantizeLinear: marked, taken, and weights found on their grid."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from deploy.graph.importer import import_graph
from deploy.graph.stored import STORED, codes_of, has_pairs, mark_stored, take_grids
from deploy.graph.view import Graph, activation
from deploy.grid import Grid
from lut.errors import UserError


def model(
    *, scale: float = 0.05, zero: int = 0, kind: type = np.uint8, read_scale: float | None = None,
    act: str = "", per_channel: bool = False,
) -> onnx.ModelProto:  # fmt: skip
    """x -> Conv -> [act ->] pair -> y, the convolution's weights in int8."""
    scales = np.full(2, scale, np.float32) if per_channel else np.float32(scale)
    zeros = np.full(2, zero, kind) if per_channel else kind(zero)
    arrays = {
        "q": np.array([[1, -2, 3], [0, 127, 5]], np.int8).reshape(2, 3, 1, 1),
        "s": np.array([0.5, 0.25], np.float32), "b": np.array([4, -8], np.int32),
        "bs": np.array([0.125, 0.25], np.float32), "scale": scales, "zero": zeros,
        "read": np.float32(scale if read_scale is None else read_scale),
    }  # fmt: skip
    read = "read" if read_scale is not None else "scale"
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s"], ["w"], axis=0),
        helper.make_node("DequantizeLinear", ["b", "bs"], ["c"], axis=0),
        helper.make_node("Conv", ["x", "w", "c"], ["conv"]),
        *([helper.make_node(act, ["conv"], ["acted"])] if act else []),
        helper.make_node("QuantizeLinear", ["acted" if act else "conv", "scale", "zero"], ["int"]),
        helper.make_node("DequantizeLinear", ["int", read, "zero"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "pairs", [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3, 4, 5])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 2, 4, 5])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in arrays.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def test_marks_one_node_for_a_pair_and_floats_for_constants() -> None:
    given_model = model()
    marked = mark_stored(given_model)
    assert has_pairs(given_model)
    assert not has_pairs(marked)
    assert [node.op_type for node in marked.graph.node] == ["Conv", STORED]
    floats = {t.name: numpy_helper.to_array(t) for t in marked.graph.initializer}
    expected = np.array([[0.5, -1, 1.5], [0, 127 / 4, 1.25]], np.float32).reshape(2, 3, 1, 1)
    np.testing.assert_array_equal(floats["w"], expected)
    np.testing.assert_array_equal(floats["c"], np.array([0.5, -2], np.float32))
    assert "q" not in floats


@pytest.mark.parametrize(("kind", "zero", "expected"), [(np.uint8, 7, 7), (np.int8, -128, 0)])
def test_signed_maps_are_unsigned_ones_of_another_zero_point(
    kind: type, zero: int, expected: int
) -> None:
    _, grids = take_grids(import_graph(mark_stored(model(kind=kind, zero=zero))))
    assert [grid.zero for grid in grids.values()] == [expected]
    assert [grid.scale for grid in grids.values()] == pytest.approx([0.05])


@pytest.mark.parametrize(
    ("scale", "zero", "act", "expected"),
    [
        (0.05, 0, "", "relu"),  # up to 12.75
        (6 / 255, 0, "", "relu6"),
        (0.05, 3, "", "none"),  # there are smaller numbers: nothing is missing
        (0.05, 0, "Relu", "relu"),
        (0.05, 0, "Sigmoid", "sigmoid"),
    ],
)
def test_an_activation_that_bytes_do_the_work_of_is_put_back(
    scale: float, zero: int, act: str, expected: str
) -> None:
    module, grids = take_grids(import_graph(mark_stored(model(scale=scale, zero=zero, act=act))))
    graph = Graph(module["main"])
    (var,) = grids
    found, source = activation(graph, var)
    assert found == expected
    assert graph.call(source, "relax.add") is not None  # and no second one


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kind": np.int16}, "a map in int16"),
        ({"kind": np.uint16}, "a map in uint16"),
        ({"per_channel": True}, "with 2 scales"),
        ({"scale": 0.0}, "a scale of 0"),
        ({"scale": float("nan")}, "a scale of nan"),
        ({"read_scale": 0.1}, "written with one scale and read with another"),
    ],
)
def test_refuses_what_bytes_cannot_be(options: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        mark_stored(model(**options))


def test_a_map_has_one_grid() -> None:
    """Two pairs on it, each for a reader of its own, would be two maps."""
    twice = model()
    names = ["conv", "other", "zero"]
    twice.graph.initializer.append(numpy_helper.from_array(np.float32(0.1), "other"))
    twice.graph.node.append(helper.make_node("QuantizeLinear", names, ["int2"]))
    names = ["int2", "other", "zero"]
    twice.graph.node.append(helper.make_node("DequantizeLinear", names, ["z"]))
    twice.graph.output.append(
        helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, [1, 2, 4, 5])
    )
    with pytest.raises(UserError, match="has another scale already"):
        mark_stored(twice)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**32 - 1), st.integers(1, 5),
    st.sampled_from([(3, 1, 1), (1, 3, 3), (1, 1, 1)]), st.integers(1, 127),
)  # fmt: skip
def test_weights_are_found_on_their_grid(
    seed: int, channels: int, inner: tuple[int, int, int], most: int
) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.integers(-most, most + 1, (channels, *inner)).astype(np.int8)
    scales = (10.0 ** rng.uniform(-6, 3, channels)).astype(np.float32)
    weight = (codes.astype(np.float64) * scales[:, None, None, None]).astype(np.float32)
    found = codes_of(weight)
    assert found is not None
    again = found[0].astype(np.float64) * found[1][:, None, None, None]
    np.testing.assert_allclose(again, weight, rtol=2e-6, atol=0)
    assert np.abs(found[0].astype(int)).max() <= 127


def test_weights_that_no_one_quantised_have_no_grid() -> None:
    weight = np.random.default_rng(0).standard_normal((4, 8, 3, 3)).astype(np.float32)
    assert codes_of(weight) is None


def test_the_largest_number_of_a_grid() -> None:
    assert Grid(0.5, 55).most == 100
