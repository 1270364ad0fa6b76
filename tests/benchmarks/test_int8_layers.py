"""Every layer in 8 bits, on onnxruntime's own maps, is onnxruntime's but for ties."""

import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from benchmarks import int8_layers
from benchmarks.int8_layers import Found, Layers, Piece, compare, pieces_of
from deploy.quantise.pairs import with_pairs
from deploy.quantise.places import find_places
from deploy.quantise.scales import Range, grid_of
from deploy.quantise.wiring import Wiring
from lut.errors import WorkError
from tests.deploy.quantise.maps import conv, graph_of, node
from tests.deploy.quantised_networks import SHAPE, Way, given, network, quantised
from tests.deploy.reading.files import normal_form

BLACK = np.full(SHAPE, -2, np.float32)
# A part of each family: STDC's concatenation of parts with other scales behind a strided average;
# BiSeNet's residual sum, its gate by a mean, its sum of a gated map and another.
DENSE_CONCAT = [
    conv("x", "a", 1), node("Relu", "a", "b"), conv("b", "w", 3, group=4), conv("w", "d", 3),
    node("Relu", "d", "e"), conv("e", "f", 3), node("Relu", "f", "g"),
    node("AveragePool", "b", "p", kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1),
    node("Concat", "p e g", "c", axis=1), node("Conv", "c narrow", "y"),
]  # fmt: skip
REFINEMENT = [
    conv("x", "a", 3), node("Relu", "a", "b"), conv("b", "r", 3), node("Add", "r x", "s"),
    node("Relu", "s", "t"), conv("t", "u", 3), node("Relu", "u", "v"),
    node("GlobalAveragePool", "v", "m"), conv("m", "n"), node("Sigmoid", "n", "o"),
    node("Mul", "v o", "k"), node("Add", "k t", "l"), conv("l", "y"),
]  # fmt: skip


def by_us(nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
    """Quantised by our tool on grids of several scales; what is rectified begins at 0."""
    rng = np.random.default_rng(7)
    narrow = {"narrow": rng.normal(0, 0.4, (4, 12, 1, 1)).astype(np.float32)}
    model = graph_of(nodes, ["y"], narrow if nodes is DENSE_CONCAT else None)
    places = find_places(Wiring(model.graph))
    makers = {name: n.op_type for n in model.graph.node for name in n.output}
    grids = {
        name: grid_of(Range(0 if makers.get(name) == "Relu" else -high, high))
        for name, high in zip(places.maps, rng.uniform(2, 5, len(places.maps)), strict=True)
    }
    for group in places.shared:
        grids |= dict.fromkeys(group, grids[group[0]])
    return with_pairs(model, places, grids)


def assert_right(model: onnx.ModelProto, images: list[np.ndarray], pieces: int) -> set[str]:
    """Every piece is; the kinds of kernels that ran."""
    layers, kinds = Layers(model), set[str]()
    assert len(layers.pieces) == pieces
    for piece, compiled, found in layers.compare(images):
        assert found.right, (piece.target, found)
        kinds |= {info.template for info in compiled.kernels}
    return kinds


@pytest.mark.parametrize("nodes", [DENSE_CONCAT, REFINEMENT], ids=["stdc", "bisenet"])
def test_parts_of_dense_networks(nodes: list[onnx.NodeProto]) -> None:
    images = [np.random.default_rng(i).normal(0, 1, (4, 8, 8)).astype(np.float32) for i in (1, 2)]
    black = np.full((4, 8, 8), -2, np.float32)
    kinds = assert_right(by_us(nodes), [*images, black], 5 if nodes is REFINEMENT else 7)
    wanted = {"conv", "concat"} if nodes is DENSE_CONCAT else {"conv", "global_pool"}
    assert wanted <= kinds


def test_a_network_by_onnxruntimes_tool(tmp_path: Path) -> None:
    model = normal_form(quantised(network(), Way("QDQ"), tmp_path))
    kinds = assert_right(model, [given(9)[0], BLACK[0]], 17)
    assert {"conv", "pool", "concat", "pointwise"} <= kinds


def one_piece() -> Piece:
    return next(piece for piece in pieces_of(by_us(REFINEMENT)) if piece.scale)


@pytest.mark.parametrize(("quanta", "right"), [(0, True), (1, False), (2, False)])
def test_a_wrong_value_is_found(quanta: int, right: bool) -> None:
    """A quantum that no tie explains, too."""
    piece = one_piece()
    maps = np.random.default_rng(0).normal(0, 1, (1, 4, 8, 8)).astype(np.float32)
    (wanted,) = int8_layers.evaluate(piece.graph, maps, [piece.target])
    (value,) = int8_layers.evaluate(piece.graph, maps, [piece.value])
    from_tie = np.abs(value / piece.scale - np.floor(value / piece.scale) - 0.5)
    got = wanted.copy()
    got.flat[from_tie.argmax()] += quanta * piece.scale
    found = compare(piece, maps, got, wanted)
    assert found.right == right
    assert found.off == (quanta > 0)
    assert found.most == quanta


def test_scores_have_no_tie() -> None:
    piece, wanted = replace(one_piece(), scale=0.0), np.array([[-2.0, 1.0]])
    assert compare(piece, wanted, wanted + 1e-6, wanted).right
    assert not compare(piece, wanted, wanted + 1e-4, wanted).right


def test_the_command_says_what_is_wrong(monkeypatch, capsys) -> None:
    model = graph_of([conv("x", "a"), node("Relu", "a", "b"), conv("b", "y")], ["y"])
    places = find_places(Wiring(model.graph))
    pairs = with_pairs(model, places, dict.fromkeys(places.maps, grid_of(Range(0, 4))))
    monkeypatch.setattr(int8_layers, "quantised", lambda *_: pairs)
    images = {"golden": np.zeros((4, 8, 8), np.float32)}
    monkeypatch.setattr(int8_layers, "probe_images", lambda *_: images)
    arguments = ["--networks", "one", "--by", "us", "--size", "64x64"]
    monkeypatch.setattr(sys, "argv", ["int8_layers", *arguments])
    int8_layers.main()
    assert "one, quantised by us: 2 layers" in capsys.readouterr().out
    monkeypatch.setattr(int8_layers, "compare", lambda *_: Found(4, 1, 2, math.inf))
    with pytest.raises(WorkError, match=r"wrong: one by us: .*; one by us: y"):
        int8_layers.main()
