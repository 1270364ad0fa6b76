"""Graphs with pairs, in onnxruntime and in numpy's integers."""

import numpy as np
import onnx
import pytest
from onnx.numpy_helper import to_array

from deploy.graph.reference import OnnxSession
from deploy.graph.stored import mark_stored
from deploy.quantise.pairs import with_pairs
from deploy.quantise.places import find_places
from deploy.quantise.scales import Range, grid_of
from deploy.quantise.wiring import Wiring
from tests.deploy.quantise.maps import conv, graph_of, node


def quantised(model: onnx.ModelProto, keep=(), **ranges: Range) -> onnx.ModelProto:
    places = find_places(Wiring(model.graph), keep)
    grids = {name: grid_of(ranges.get(name, Range(-4, 4))) for name in places.maps}
    return with_pairs(model, places, grids)


def ops(model: onnx.ModelProto) -> list[str]:
    return [n.op_type for n in model.graph.node]


@pytest.fixture
def block() -> onnx.ModelProto:
    """1x1, ReLU6, depthwise, ReLU6, 1x1, residual sum, 1x1."""
    return graph_of(
        [
            conv("x", "e"), node("Clip", "e zero six", "f"), conv("f", "d", 3, group=4),
            node("Clip", "d zero six", "g"), conv("g", "p"), node("Add", "p x", "s"),
            conv("s", "y"),
        ],
        ["y"],
    )  # fmt: skip


X = np.random.default_rng(5).normal(0, 1, (1, 4, 8, 8)).astype(np.float32)
RELU6 = Range(0, 6)


def test_its_numbers_are_those_of_integers(block):
    """Each layer by exact sums of whole numbers, in double, from uint8 to uint8."""
    found = quantised(block, f=RELU6, g=RELU6)
    assert ops(found).count("Clip") == 0  # the saturation of uint8 is theirs
    tensors = {t.name: to_array(t) for t in found.graph.initializer}
    weights = {n.name: n for n in found.graph.node if n.op_type == "DequantizeLinear"}
    assert sum(name.startswith("hmseg_q_") for name in weights) == 4 + 2 * 4
    grids = {"x": grid_of(Range(-4, 4)), "s": grid_of(Range(-4, 4)), "f": grid_of(RELU6)}
    grids["g"] = grids["f"]

    def stored(real, grid):
        return np.clip(np.rint(real / np.float64(grid.scale)) + grid.zero, 0, 255)

    def sums(q, grid, number, groups=1):
        """Real numbers of a layer, the only rounding its double's."""
        w = tensors[f"hmseg_q_{number}_weight"].astype(np.int64)
        b = tensors[f"hmseg_q_{number}_bias"].astype(np.int64)
        scale = tensors[f"hmseg_q_{number}_bias_scale"].astype(np.float64)
        whole = q.astype(np.int64)[0] - grid.zero
        if groups == 1:
            out = np.einsum("oi,ihw->ohw", w[:, :, 0, 0], whole)
        else:
            padded = np.pad(whole, ((0, 0), (1, 1), (1, 1)))
            out = sum(
                w[:, 0, i, j, None, None] * padded[:, i : i + 8, j : j + 8]
                for i in range(3) for j in range(3)
            )  # fmt: skip
        return ((out + b[:, None, None]) * scale[:, None, None])[None]

    def real(q, grid):
        return (q - grid.zero) * np.float64(grid.scale)

    x = stored(X, grids["x"])
    f = stored(sums(x, grids["x"], 0), grids["f"])
    g = stored(sums(f, grids["f"], 2, groups=4), grids["g"])
    s = stored(sums(g, grids["g"], 4) + real(x, grids["x"]), grids["s"])
    y = sums(s, grids["s"], 6)
    for optimised in (True, False):
        (got,) = OnnxSession(found, optimised=optimised).run_batch(X)
        np.testing.assert_allclose(got, y, atol=1e-5 * np.abs(y).max())


def test_what_is_kept_stays_as_it_is(block):
    found = quantised(block, keep={"d"}, f=RELU6, g=RELU6)
    names = {t.name for t in found.graph.initializer}
    assert {"d.weight", "d.bias"} <= names
    assert not {"e.weight", "p.weight"} & names
    clips = [n for n in found.graph.node if n.op_type == "Clip"]
    assert [n.output[0] for n in clips] == ["f"]  # that behind d is p's input: a saturation


def test_all_kept_but_one_is_nearly_float(block):
    float_y = OnnxSession(block).run_batch(X)[0]
    one = quantised(block, keep={"e", "d", "p"}, s=Range(-20, 20))
    assert ops(one).count("QuantizeLinear") == 1
    got = OnnxSession(one).run_batch(X)[0]
    assert 0 < np.abs(got - float_y).max() < 0.5


def test_the_graph_given_is_not_changed(block):
    before = block.SerializeToString()
    quantised(block)
    assert block.SerializeToString() == before


def test_of_a_layer_of_means_the_weights_alone():
    model = graph_of(
        [
            conv("x", "e", 3), node("GlobalAveragePool", "e", "m"), conv("m", "c"), conv("e", "d"),
            node("Mul", "d c", "y"),
        ],
        ["y"],
    )  # fmt: skip
    tensors = {t.name: to_array(t) for t in quantised(model).graph.initializer}
    given = {t.name: to_array(t) for t in model.graph.initializer}["c.weight"]
    stored, scale = tensors["hmseg_q_2_weight"], tensors["hmseg_q_2_weight_scale"]
    assert stored.dtype == np.int8
    off = stored * scale.reshape(-1, 1, 1, 1).astype(np.float64) - given
    assert np.abs(off).max() <= np.abs(given).max() / 254 * 1.001
    assert {"c.bias", "hmseg_q_0_bias"} <= tensors.keys()


def test_a_clip_above_its_range_is_left(block):
    wide = quantised(block, f=Range(0, 7), g=RELU6)
    assert [n.output[0] for n in wide.graph.node if n.op_type == "Clip"] == ["f"]


def test_products_of_tokens_and_transposed_convolutions():
    rng = np.random.default_rng(1)
    model = graph_of(
        [
            node("ConvTranspose", "x up b", "t", strides=[2, 2]), node("Reshape", "t flat", "r"),
            node("Transpose", "r", "k", perm=[0, 2, 1]), node("MatMul", "k w", "m"),
            node("Add", "m c", "y"),
        ],
        ["y"],
        {
            "up": rng.normal(size=(4, 4, 2, 2)).astype(np.float32), "b": np.ones(4, np.float32),
            "flat": np.array([1, 4, 256]), "w": rng.normal(size=(4, 6)).astype(np.float32),
            "c": np.arange(6, dtype=np.float32),
        },
    )  # fmt: skip
    found = quantised(model, t=Range(-8, 8), r=Range(-8, 8), k=Range(-8, 8))
    stored = [to_array(t) for t in found.graph.initializer if t.name.endswith("_weight")]
    assert [w.dtype for w in stored] == [np.int8, np.int8]
    assert sorted(len(to_array(t)) for t in found.graph.initializer
                  if t.name.endswith("_weight_scale")) == [4, 6]  # fmt: skip
    wanted, got = (OnnxSession(m).run_batch(X)[0] for m in (model, found))
    assert np.abs(got - wanted).max() < 0.02 * np.abs(wanted).max()


def test_a_relu_of_a_map_that_others_read_stays():
    """A sum goes on as it is and through a ReLU, each with a scale of its own (DDRNet)."""
    model = graph_of(
        [
            conv("x", "p"), node("Add", "p x", "s"), node("Relu", "s", "r"), conv("r", "a"),
            conv("s", "b"), node("Add", "a b", "y"), conv("y", "z"),
        ],
        ["z"],
    )  # fmt: skip
    found = quantised(model, r=Range(0, 4))
    (relu,) = [n for n in found.graph.node if n.op_type == "Relu"]
    assert relu.input[0] == "hmseg_q_s_float"
    marked = [n for n in mark_stored(found).graph.node if n.op_type == "Stored"]
    assert len({n.input[0] for n in marked}) == len(marked)
