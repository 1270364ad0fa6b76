"""Every operator whose form changed gives what onnxruntime gives for the original file."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from deploy.resolution import Resolution
from lut.errors import UserError
from tests.deploy.reading.files import Network, assert_same, normal_form, ops


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("scales", [(2, 3), (1.5, 2.25), (1, 2)])
@pytest.mark.parametrize("opset", [7, 9, 10])
def test_upsample_and_resize_of_opset_10(opset: int, scales: tuple[float, float], mode: str):
    network = Network(opset)
    full = [1.0, 1.0, *map(float, scales)]
    if opset == 7:
        y = network("Upsample", "x", scales=full, mode=mode)
    else:
        y = network("Upsample" if opset == 9 else "Resize", "x", network.const(full), mode=mode)
    assert_same(network.model(y))


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("scales", [(0.5, 0.5), (0.4, 0.7), (0.6, 2.5)])
def test_resize_of_opset_10_to_fewer_pixels(scales: tuple[float, float], mode: str):
    network = Network(10)
    y = network("Resize", "x", network.const([1.0, 1.0, *scales]), mode=mode)
    assert_same(network.model(y))


@pytest.mark.parametrize("nearest", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
@pytest.mark.parametrize("size", [(16, 24), (5, 7), (11, 30)])
def test_tensorflows_nearest_pixel_of_opset_11(size: tuple[int, int], nearest: str):
    network = Network(11)
    empty = network.const(np.zeros(0, np.float32))
    y = network(
        "Resize",
        "x",
        empty,
        empty,
        network.const(np.array([1, 3, *size])),
        mode="nearest",
        nearest_mode=nearest,
        coordinate_transformation_mode="tf_half_pixel_for_nn",
    )
    assert_same(network.model(y))


@pytest.mark.parametrize("opset", [11, 13, 18, 19, 21])
@pytest.mark.parametrize("by", ["scales", "sizes"])
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("place", ["half_pixel", "align_corners", "pytorch_half_pixel"])
def test_resize(opset: int, by: str, mode: str, place: str):
    network = Network(opset)
    if by == "scales":
        inputs = [network.const([1.0, 1.0, 1.7, 2.0])]
    else:
        inputs = [network.const(np.zeros(0, np.float32)), network.const(np.array([1, 3, 13, 25]))]
    roi = network.const(np.zeros(0, np.float32))
    y = network("Resize", "x", roi, *inputs, mode=mode, coordinate_transformation_mode=place)
    assert_same(network.model(y))


@pytest.mark.parametrize("given", [{"axes": [2, 3]}, {"axes": [-1, -2]}])
def test_resize_with_axes(given: dict[str, list[int]]):
    network = Network(18)
    y = network("Resize", "x", "", "", network.const(np.array([16, 20])), mode="linear", **given)
    assert_same(network.model(y))


def test_a_resize_to_its_own_size_is_gone():
    network = Network(13)
    y = network("Resize", network("Relu", "x"), "", network.const([1.0, 1, 1, 1]), mode="linear")
    assert ops(assert_same(network.model(y))) == ["Relu"]


@pytest.mark.parametrize("opset", [7, 11, 12, 13])
@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax", "Hardmax"])
def test_softmax_runs_over_all_axes_from_its_own_on_before_opset_13(opset: int, op: str):
    for axis in (None, 0, 1, 2, 3, *([-1] if opset >= 11 else [])):
        network = Network(opset)
        y = network(op, "x", **({} if axis is None else {"axis": axis}))
        assert_same(network.model(y))


def test_clip_in_all_its_forms():
    for attributes in ({"min": 0.0, "max": 6.0}, {"max": 1.0}, {"min": -0.5}, {}):
        network = Network(7)
        assert_same(network.model(network("Clip", "x", **attributes)))
    for low, high in ((0.0, 6.0), (None, 1.0), (-0.5, None), (None, None)):
        network = Network(13)
        names = ["" if bound is None else network.const(bound) for bound in (low, high)]
        assert_same(network.model(network("Clip", "x", *names)))


def test_pads():
    for attributes in ({"value": 1.5}, {"mode": "reflect"}, {"mode": "edge"}, {}):
        network = Network(9)
        y = network("Pad", "x", pads=[0, 0, 1, 2, 0, 0, 3, 1], **attributes)
        assert_same(network.model(y))
    for pads in ([0, 1, 1, 2, 0, 0, 3, 1], [0, 0, -1, 2, 0, -1, 3, -2]):
        network = Network(13)
        y = network("Pad", "x", network.const(np.array(pads)), network.const(0.5))
        assert_same(network.model(y))
    network = Network(18)
    y = network(
        "Pad",
        "x",
        network.const(np.array([1, 2, 3, 4])),
        "",
        network.const(np.array([-1, 2])),
        mode="reflect",
    )
    assert_same(network.model(y))
    network = Network(19)
    y = network("Pad", "x", network.const(np.array([0, 0, 1, 2, 0, 0, 3, 4])), mode="wrap")
    assert_same(network.model(y))


def test_slices():
    network = Network(9)
    assert_same(network.model(network("Slice", "x", starts=[1, -5], ends=[9999, -1], axes=[2, 3])))
    for values in (
        ([1], [-1], [3], [2]),
        ([7], [-99], [2], [-3]),
        ([0, 2], [3, 7], [-3, -1], [1, 1]),
    ):
        network = Network(13)
        y = network("Slice", "x", *(network.const(np.array(v)) for v in values))
        assert_same(network.model(y))


@pytest.mark.parametrize("opset", [7, 11, 13, 18])
def test_squeeze_unsqueeze_and_split(opset: int):
    network = Network(opset)
    a, b = network("Split", "x", outputs=2, axis=2, **({} if opset < 18 else {"num_outputs": 2}))
    if opset < 13:
        y = network("Unsqueeze", network("Squeeze", a, axes=[0]), axes=[0, 2])
        c, _, d = network("Split", b, outputs=3, axis=3, split=[2, 3, 7])
    else:
        one = network.const(np.array([0]))
        y = network("Unsqueeze", network("Squeeze", a, one), network.const(np.array([0, 2])))
        c, _, d = network("Split", b, network.const(np.array([2, 3, 7])), outputs=3, axis=3)
    y = network("Squeeze", y)
    assert_same(network.model(y, c, d))


@pytest.mark.parametrize("op", ["ReduceMean", "ReduceMax", "ReduceSum", "ReduceL2"])
def test_reductions_in_all_their_forms(op: str):
    for opset in (7, 11, 13, 18):
        network = Network(opset)
        if opset < 13 or (opset < 18 and op != "ReduceSum"):
            ys = [network(op, "x", axes=[2, 3]), network(op, "x", axes=[1], keepdims=0)]
        else:
            ys = [
                network(op, "x", network.const(np.array([2, -1]))),
                network(op, "x", network.const(np.array([1])), keepdims=0),
            ]
        if opset >= 18:
            ys.append(network(op, "x", noop_with_empty_axes=1))
        assert_same(network.model(*ys, network(op, "x")))


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_automatic_padding_becomes_numbers(auto_pad: str):
    network = Network(11, (1, 3, 9, 14))
    y = network("Conv", "x", network.weights(4, 3, 3, 2), auto_pad=auto_pad, strides=[2, 3])
    y = network("MaxPool", y, kernel_shape=[2, 2], strides=[2, 1], auto_pad=auto_pad)
    z = network("AveragePool", "x", kernel_shape=[3, 4], strides=[2, 2], auto_pad=auto_pad)
    w = network(
        "ConvTranspose", "x", network.weights(3, 4, 3, 3), auto_pad=auto_pad, strides=[2, 2]
    )
    normal = assert_same(network.model(y, z, w))
    assert not any(a.name == "auto_pad" for node in normal.graph.node for a in node.attribute)


@pytest.mark.parametrize("given", [{}, {"auto_pad": "SAME_UPPER"}, {"output_padding": [1, 1]}])
def test_a_transposed_convolution_of_a_given_size(given):
    network = Network(11)
    y = network(
        "ConvTranspose",
        "x",
        network.weights(3, 4, 4, 3),
        strides=[2, 2],
        output_shape=[16, 24],
        **given,
    )
    assert_same(network.model(y))


def test_group_norm_has_scales_of_groups_and_later_of_channels():
    for opset, factors in ((18, 2), (21, 4)):
        network = Network(opset, (1, 4, 6, 5))
        y = network(
            "GroupNormalization",
            "x",
            network.weights(factors),
            network.weights(factors),
            num_groups=2,
            epsilon=1e-3,
        )
        assert_same(network.model(y))


def test_operators_of_later_opsets_are_written_out():
    network = Network(23)
    x = network("RMSNormalization", "x", network.weights(12), axis=-1)
    assert_same(network.model(x))
    network = Network(24)
    assert_same(network.model(network("Swish", "x", alpha=1.5)))


def test_prelu_cast_like_and_dropout():
    network = Network(16)
    y = network("PRelu", "x", network.weights(3, 1, 1))
    y = network("Dropout", network("CastLike", y, network.const(1.0)), network.const(0.5))
    assert ops(assert_same(network.model(y))) == ["PRelu"]
    network = Network(11)
    y = network("Dropout", "x", ratio=0.3)
    assert_same(network.model(network("Relu", y)))


def test_scatter_and_top_k_of_old():
    network = Network(9)
    index = network.const(np.zeros((1, 3, 1, 12), np.int64))
    y = network("Scatter", "x", index, network.weights(1, 3, 1, 12), axis=2)
    values, _ = network("TopK", y, outputs=2, k=3, axis=3)
    assert_same(network.model(values))


def test_grid_sample_has_other_names():
    grid = np.random.default_rng(1).uniform(-1.2, 1.2, (1, 5, 6, 2)).astype(np.float32)
    for mode in ("bilinear", "bicubic", "nearest"):
        network = Network(16)
        assert_same(network.model(network("GridSample", "x", network.const(grid), mode=mode)))


def test_sequences_are_their_tensors():
    network = Network(13)
    parts = network("SplitToSequence", "x", network.const(np.array([1, 2])), axis=1)
    a = network("SequenceAt", parts, network.const(np.array(0)))
    b = network("SequenceAt", parts, network.const(np.array(-1)))
    joined = network("ConcatFromSequence", network("SequenceConstruct", b, a), axis=1)
    single = network("SplitToSequence", "x", axis=1, keepdims=0)
    c = network("SequenceAt", single, network.const(np.array(2)))
    normal = assert_same(network.model(joined, c))
    assert "SequenceAt" not in ops(normal)


def test_a_branch_with_a_constant_condition_is_taken():
    def branch(op: str) -> object:
        node = helper.make_node(op, ["x"], ["inner"], name=op)
        again = helper.make_node("Mul", ["inner", "two"], ["out"], name="again")
        two = helper.make_tensor("two", TensorProto.FLOAT, [], [2.0])
        output = helper.make_tensor_value_info("out", TensorProto.FLOAT, None)
        return helper.make_graph([node, again], op, [], [output], [two])

    network = Network(13)
    rank = network("Size", network("Shape", "x"))
    ys = []
    for wanted in (4, 5):
        condition = network("Equal", rank, network.const(np.array(wanted)))
        ys.append(
            network("If", condition, then_branch=branch("Relu"), else_branch=branch("Sigmoid"))
        )
    normal = assert_same(network.model(*ys))
    assert sorted(ops(normal)) == ["Mul", "Mul", "Relu", "Sigmoid"]


def test_a_loop_of_constants_is_a_constant():
    body = helper.make_graph(
        [
            helper.make_node("Add", ["sum", "i_float"], ["next"]),
            helper.make_node("Cast", ["i"], ["i_float"], to=TensorProto.FLOAT),
            helper.make_node("Identity", ["go"], ["go_on"]),
        ][::-1],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, []),
        ],
    )
    body.node.sort(key=lambda node: node.op_type == "Add")
    network = Network(13)
    count, go, start = network.const(np.array(4)), network.const(np.array(True)), network.const(0.0)
    total = network("Loop", count, go, start, body=body)
    normal = assert_same(network.model(network("Add", "x", total)))
    assert ops(normal) == ["Add"]


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda n: n("Reshape", "x", n("NonZero", "x")), "NonZero_0"),
        (lambda n: n("Gather", "x", n.const(np.array([0, 3])), axis=1), "index 3"),
        (lambda n: n("Foo", "x", domain="com.example"), "com.example.Foo node 'Foo_0'"),
        (lambda n: n("Foo", "x"), "Foo"),
        (lambda n: n("Conv", "x", n.weights(4, 2, 3, 3)), "take 2 channels"),
        (lambda n: n("Conv", "x", n.weights(4, 3, 3, 3), n.weights(4, 1)), "bias 4x1"),
        (lambda n: n("Resize", "x", "", n.const([1.0, 1, 2, 2]), mode="lanczos"), "its mode"),
        (lambda n: n("Reshape", "x", n.const(np.array([1, 3, 7, 12]))), "Reshape_0"),
        (
            lambda n: n("BatchNormalization", "x", *[n.weights(3)] * 4, outputs=3, training_mode=1)[
                0
            ],
            "training mode",
        ),
        (lambda n: n("Dropout", "x", n.const(0.5), n.const(np.array(True))), "training mode"),
        (lambda n: n("Add", "x", "nowhere"), "'nowhere'"),
    ],
)
def test_what_has_no_meaning_is_refused_by_name(build, words: str):
    network = Network(15)
    with pytest.raises(UserError, match=words):
        normal_form(network.model(build(network)))


@pytest.mark.parametrize("opset", range(7, 26))
def test_a_small_network_in_every_opset(opset: int):
    network = Network(opset, ("batch", 3, "height", "width"), ir_version=3 if opset < 9 else 8)
    y = network("Conv", "x", network.weights(8, 3, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1])
    statistics = [network.weights(8), network.weights(8), network.weights(8)]
    y = network("BatchNormalization", y, *statistics, network.const(np.full(8, 0.7, np.float32)))
    y = network("AveragePool", network("Relu", y), kernel_shape=[2, 2], strides=[2, 2])
    y = network("Softmax", network("Conv", y, network.weights(5, 8, 1, 1)), axis=1)
    model = network.model(y)
    if opset == 7:  # old files list their weights among the inputs; 8 of old IR does not
        for tensor in model.graph.initializer:
            kind = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            model.graph.input.append(kind)
    normal = assert_same(model, Resolution(16, 24))
    assert [dim.dim_value for dim in normal.graph.input[0].type.tensor_type.shape.dim] == [
        1,
        3,
        16,
        24,
    ]
