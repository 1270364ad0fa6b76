"""Weights that are off by some roundings: weights alone, so that the graph stays what it is."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from deploy.graph.expected import TwoSessions
from deploy.graph.jitter import jittered, weights_of
from deploy.noise import UNIT
from tests.deploy.quantise.maps import conv, graph_of, node

GIVEN = np.random.default_rng(2).normal(0, 1, (1, 4, 8, 8)).astype(np.float32)


def constants_of(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_every_weight_is_off_by_so_many_roundings_at_most() -> None:
    model = graph_of([conv("x", "c", 3), node("Mul", "c factors", "y")], ["y"], {
        "factors": np.linspace(1, 2, 4, dtype=np.float32).reshape(4, 1, 1),
    })  # fmt: skip
    before, after = constants_of(model), constants_of(jittered(model, 0, 16))
    assert before.keys() == after.keys() == {"c.weight", "c.bias", "factors"} == weights_of(model)
    for name, value in before.items():
        off = np.abs(after[name] / value.astype(np.float64) - 1).max()
        assert 4 * UNIT < off < 18 * UNIT


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_of_a_resize_by_scales_the_size_stays(mode: str) -> None:
    """A scale of 2 that is off by a rounding is a row less: no graph any more."""
    nodes = [
        conv("x", "c"), node("Resize", "c - half", "h", mode=mode), node("Round", "h", "r"),
        node("Resize", "r - twice", "u", mode=mode), node("Concat", "u c", "y", axis=1),
    ]  # fmt: skip
    model = graph_of(nodes, ["y"])
    for one, other in zip(*TwoSessions(model, jumps=True).run(GIVEN), strict=True):
        assert one.shape == other.shape == (1, 8, 8, 8)


def test_bounds_fillings_grids_and_sizes_are_no_weights() -> None:
    """Also where a size is computed in floats from a map's."""
    nodes = [
        conv("x", "c"), node("Clip", "c zero six", "a"), node("Pad", "a pads fill", "p"),
        node("QuantizeLinear", "p scale point", "q"),
        node("DequantizeLinear", "q scale point", "d"),
        node("Shape", "d", "s"), node("Cast", "s", "f", to=onnx.TensorProto.FLOAT),
        node("Div", "f sizes", "scales"), node("Resize", "d - scales", "y", mode="nearest"),
    ]  # fmt: skip
    model = graph_of(nodes, ["y"], {
        "pads": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64), "fill": np.float32(0.5),
        "scale": np.float32(0.1), "point": np.uint8(128),
        "sizes": np.array([1, 4, 5, 5], np.float32),
    })  # fmt: skip
    assert weights_of(model) == {"c.weight", "c.bias"}


def test_of_weights_in_8_bits_the_scales_are_off() -> None:
    nodes = [node("DequantizeLinear", "codes by", "w", axis=0), node("Conv", "x w", "y")]
    model = graph_of(nodes, ["y"], {
        "codes": np.full((4, 4, 1, 1), 3, np.int8), "by": np.full(4, 0.1, np.float32),
    })  # fmt: skip
    assert weights_of(model) == {"by"}


def test_what_is_read_as_something_else_too_stays() -> None:
    nodes = [node("Mul", "x six", "m"), node("Clip", "m zero six", "y")]
    model = graph_of(nodes, ["y"])
    assert weights_of(model) == set()


def test_the_largest_number_stays_finite_and_infinity_as_it_is() -> None:
    """A mask of attention: of all infinities no softmax is one."""
    mask = np.array([np.finfo(np.float32).min, -np.inf, 0, np.nan] * 2, np.float32)
    model = graph_of([node("Add", "x mask", "y")], ["y"], {"mask": mask})
    found = constants_of(jittered(model, 0, 64))["mask"]
    assert np.isfinite(found[0::4]).all()
    np.testing.assert_array_equal(found[1::4], mask[1::4])
    np.testing.assert_array_equal(found[2:4], mask[2:4])
