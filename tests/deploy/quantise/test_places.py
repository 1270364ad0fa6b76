"""Where pairs stand: on what kernels write, not on what they keep in registers."""

import numpy as np
import pytest

from deploy.quantise.places import Places, find_layers, find_places, is_free, matching
from deploy.quantise.wiring import Wiring
from lut.errors import UserError
from tests.deploy.quantise.maps import conv, graph_of, node


def places(nodes, outputs, keep=(), constants=None) -> Places:
    return find_places(Wiring(graph_of(nodes, outputs, constants).graph), keep)


def test_a_released_network_has_pairs_where_it_is_written(graph):
    """TinyMRMS: every stage, the head's sums, resizes; none at the ends, gates and hidden sums."""
    wiring = Wiring(graph.graph)
    found = find_places(wiring)
    assert len(found.layers) == 58
    ops = [node.op_type for node in wiring.nodes]
    paired = [ops[wiring.maker(name)] for name in found.maps]
    counts = {op: paired.count(op) for op in set(paired)}
    # Activations; the image and sums; blocks without a residual; and of the resizes those that a
    # layer reads.
    assert counts == {"Clip": 38, "Add": 13, "Conv": 7, "Resize": 2}
    image = found.maps[0]
    assert found.of_image == {image}
    assert wiring.nodes[found.readers[image][0]].op_type == "Conv"
    assert {wiring.shape(name)[2:] for name in found.maps} >= {(64, 64), (32, 32), (8, 8)}
    assert all(wiring.shape(name)[2] > 1 for name in found.maps)  # no gate, no global mean
    scores = wiring.nodes[found.layers[-1].number].output[0]
    assert scores not in found.maps  # the label end is float
    assert all(wiring.nodes[number].op_type == "Clip" for number in found.free)
    assert len(found.free) == 38


def test_an_activation_and_a_sum_are_inside_the_kernel():
    found = places(
        [
            conv("x", "a"), node("Relu", "a", "r"), conv("r", "b"), node("Add", "b r", "s"),
            node("Clip", "s zero six", "t"), conv("t", "y"),
        ],
        ["y"],
    )  # fmt: skip
    assert found.maps == ("x", "r", "t")
    assert len(found.free) == 2


def test_of_two_sums_the_later_kernel_adds():
    found = places([conv("x", "a"), conv("x", "b"), node("Add", "b a", "s"), conv("s", "y")], ["y"])
    assert found.maps == ("x", "a", "s")


@pytest.mark.parametrize(
    "activation",
    [
        [node("Sigmoid", "a", "g"), node("Mul", "a g", "r")],
        [node("HardSwish", "a", "r")],
        [node("Add", "a half4", "g"), node("Clip", "g zero six", "h"), node("Mul", "h a", "r")],
    ],
)
def test_an_activation_of_several_nodes_is_inside(activation):
    constants = {"half4": np.full((1, 4, 1, 1), 0.5, np.float32)}
    found = places([conv("x", "a"), *activation, conv("r", "y")], ["y"], constants=constants)
    assert found.maps == ("x", "r")
    assert not found.free  # a saturation does not do their work


def test_a_gate_stays_wide():
    found = places(
        [
            conv("x", "a"), node("ReduceMean", "a axes", "m", keepdims=1), conv("m", "v"),
            node("Sigmoid", "v", "g"), conv("a", "b"), node("Mul", "b g", "s"), conv("s", "y"),
        ],
        ["y"],
    )  # fmt: skip
    assert found.maps == ("x", "a", "s")
    assert [layer.name for layer in found.layers] == ["a", "b", "y"]


def test_what_is_moved_keeps_its_scale_and_what_is_concatenated_gets_it():
    resize = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    found = places(
        [
            conv("x", "a"), node("Resize", "a - half", "up", **resize), conv("up", "b"),
            node("MaxPool", "b", "p", kernel_shape=[3, 3], pads=[1, 1, 1, 1]), conv("b", "c"),
            conv("c", "d"), node("Concat", "d p c", "z", axis=1),
            node("Conv", "z w v", "y"),
        ],
        ["y"],
        constants={"w": np.ones((4, 12, 1, 1), np.float32), "v": np.ones(4, np.float32)},
    )  # fmt: skip
    assert found.maps == ("x", "a", "up", "b", "p", "c", "d", "z")
    # c is read by a layer, too: it has its own.
    assert {frozenset(group) for group in found.shared} == {
        frozenset({"a", "up"}), frozenset({"b", "p", "d", "z"})
    }  # fmt: skip


def test_the_labels_end_is_float():
    resize = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    found = places(
        [
            conv("x", "a"), conv("a", "scores"), node("Resize", "scores - twice", "full", **resize),
            node("ArgMax", "full", "y", axis=1),
        ],
        ["y"],
    )  # fmt: skip
    assert found.maps == ("x", "a")


def test_a_residual_stream_that_a_norm_reads_stays_wide():
    norm = node("LayerNormalization", "t scale", "n", axis=-1)
    found = places(
        [
            conv("x", "a"), node("Add", "a x", "t"), norm, node("MatMul", "n w", "f"),
            node("Add", "f t", "u"), conv("u", "y"),
        ],
        ["y"],
        constants={"scale": np.ones(8, np.float32), "w": np.ones((8, 8), np.float32)},
    )  # fmt: skip
    assert found.maps == ("x", "n", "u")


def test_a_kept_layer_reads_and_writes_floats():
    nodes = [conv("x", "a"), node("Relu", "a", "r"), conv("r", "b"), conv("b", "y")]
    found = places(nodes, ["y"], keep={"b"})
    assert [layer.name for layer in found.layers] == ["a", "y"]
    assert found.maps == ("x", "b")
    nodes.append(conv("r", "z"))
    found = places(nodes, ["y", "z"], keep={"b"})
    assert found.maps == ("x", "r", "b")
    assert found.readers["r"] == (4,)
    assert not found.free  # the kept layer reads what the Relu gives


def test_channels_that_are_shuffled_stay_in_8_bits():
    found = places(
        [
            conv("x", "a"), node("Reshape", "a five", "g"),
            node("Transpose", "g", "h", perm=[0, 2, 1, 3, 4]), node("Reshape", "h four", "b"),
            conv("b", "y"),
        ],
        ["y"],
        constants={"five": np.array([1, 2, 2, 8, 8]), "four": np.array([1, 4, 8, 8])},
    )  # fmt: skip
    assert found.maps == ("x", "a", "g", "h", "b")
    assert [set(group) for group in found.shared] == [{"a", "g", "h", "b"}]


def test_layers_are_named_by_their_weights():
    nodes = [conv("x", "head.low"), conv("head.low", "head.high"), conv("head.high", "y")]
    layers = find_layers(Wiring(graph_of(nodes, ["y"]).graph))
    assert [layer.name for layer in layers] == ["head.low", "head.high", "y"]
    assert matching(layers, ["head"]) == {"head.low", "head.high"}
    assert matching(layers, ["*.low", "y"]) == {"head.low", "y"}
    with pytest.raises(UserError, match=r"--keep hea: no layer has this name; there are head.low"):
        matching(layers, ["hea"])


def test_weights_that_several_layers_read_give_each_a_name():
    nodes = [conv("x", "a"), node("Conv", "a a.weight a.bias", "b"), conv("b", "y")]
    layers = find_layers(Wiring(graph_of(nodes, ["y"]).graph))
    assert [layer.name for layer in layers] == ["a", "node_b", "y"]


def test_weights_that_are_computed_are_no_layers():
    nodes = [node("Relu", "w", "v"), node("Conv", "x v", "y")]
    constants = {"w": np.ones((4, 4, 1, 1), np.float32)}
    assert not find_layers(Wiring(graph_of(nodes, ["y"], constants).graph))


@pytest.mark.parametrize(
    ("scale", "zero", "free"),
    [(6 / 255, 0, True), (4 / 255, 0, True), (6.1 / 255, 0, False), (6 / 255, 1, False)],
)
def test_a_clip_is_free_where_its_output_saturates_there(scale, zero, free):
    wiring = Wiring(graph_of([node("Clip", "x zero six", "y")], ["y"]).graph)
    assert is_free(wiring.nodes[0], wiring, scale, zero) == free


@pytest.mark.parametrize("axis", [1, 2])
def test_the_layer_of_a_mean_over_one_axis_is_a_layer(axis):
    """The mean is a map: it has a pair, and what is kept stays wide."""
    nodes = [
        conv("x", "a"), conv("a", "b"), node("ReduceMean", "a one", "m", keepdims=1),
        node("Conv", "m w", "v"), node("Add", "b v", "s"), conv("s", "y"),
    ]  # fmt: skip
    channels = 1 if axis == 1 else 4
    constants = {
        "one": np.array([axis]), "w": np.ones((4, channels, 1, 1), np.float32),
    }  # fmt: skip
    found = places(nodes, ["y"], constants=constants)
    assert "node_v" in [layer.name for layer in found.layers]
    assert "m" in found.maps
    assert found.means == ()
    found = places(nodes, ["y"], {"node_v"}, constants)
    assert "node_v" not in [layer.name for layer in found.layers]
    assert "m" not in found.maps
    assert found.means == ()
