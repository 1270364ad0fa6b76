"""Operators in many forms, drawn once and compiled in one library, against onnxruntime."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from deploy.graph.importer import import_graph
from lut.errors import UserError
from tests.deploy.graph.importer.library import Library

FLOAT = TensorProto.FLOAT


class Draw:
    """One form: a graph of one node on ``x``, drawn from a seed."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.constants: dict[str, np.ndarray] = {}

    def number(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high + 1))

    def numbers(self, low: int, high: int, count: int) -> list[int]:
        return [self.number(low, high) for _ in range(count)]

    def one_of(self, *values):
        return values[self.number(0, len(values) - 1)]

    def maybe(self) -> bool:
        return self.number(0, 1) == 1

    def constant(self, array, dtype=None) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.array(array, dtype)
        return name

    def normal(self, *shape: int) -> np.ndarray:
        return self.rng.normal(0, 1, shape).astype(np.float32)

    def model(self, op: str, inputs: list[str], shape: list[int], **attributes) -> onnx.ModelProto:
        node = helper.make_node(op, inputs, ["y"], name="it", **attributes)
        tensors = [numpy_helper.from_array(array, name) for name, array in self.constants.items()]
        graph = helper.make_graph(
            [node], "form", [helper.make_tensor_value_info("x", FLOAT, shape)],
            [onnx.ValueInfoProto(name="y")], tensors,
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
        # The type alone, so that the shape is onnxruntime's own.
        model.graph.output[0].type.tensor_type.elem_type = FLOAT
        return model


def resize(draw: Draw) -> onnx.ModelProto:
    shape = [draw.number(1, 2), draw.number(1, 3), draw.number(1, 9), draw.number(2, 9)]
    mode = draw.one_of("nearest", "linear", "linear", "cubic")
    coordinates = draw.one_of(
        "half_pixel", "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners",
        "asymmetric", "tf_crop_and_resize",
    )  # fmt: skip
    attributes = {"mode": mode, "coordinate_transformation_mode": coordinates}
    if mode == "nearest":
        attributes["nearest_mode"] = draw.one_of(
            "round_prefer_floor", "round_prefer_ceil", "floor", "ceil"
        )
    if mode == "cubic":
        attributes["cubic_coeff_a"] = draw.one_of(-0.75, -0.5)
        attributes["exclude_outside"] = draw.number(0, 1)
    if mode != "nearest" and coordinates != "tf_crop_and_resize" and draw.number(0, 3) == 0:
        attributes["antialias"] = 1
    inputs = ["x", "", "", ""]
    if coordinates == "tf_crop_and_resize":
        inputs[1] = draw.constant([0, 0, 0.1, -0.2, 1, 1, 0.9, 1.1], np.float32)
        attributes["extrapolation_value"] = 2.5
    if coordinates in ("align_corners", "tf_crop_and_resize") or draw.maybe():
        inputs[3] = draw.constant([*shape[:2], *draw.numbers(1, 14, 2)], np.int64)
    else:
        ratios = [draw.one_of(0.4, 0.5, 0.6, 0.75, 1, 1.5, 1.7, 2, 3) for _ in range(2)]
        scales = [max(r, 1 / s) for r, s in zip(ratios, shape[2:], strict=True)]
        inputs[2] = draw.constant([1, 1, *scales], np.float32)
    return draw.model("Resize", inputs, shape, **attributes)


def resize_of_axes(draw: Draw) -> onnx.ModelProto:
    shape = draw.numbers(2, 6, draw.number(2, 4))
    axes = sorted(draw.rng.permutation(len(shape))[: draw.number(1, 2)].tolist())
    attributes = {
        "mode": draw.one_of("nearest", "linear"), "axes": axes,
        "keep_aspect_ratio_policy": draw.one_of("stretch", "not_larger", "not_smaller"),
    }  # fmt: skip
    sizes = draw.constant(draw.numbers(1, 9, len(axes)), np.int64)
    return draw.model("Resize", ["x", "", "", sizes], shape, **attributes)


def window(draw: Draw, rank: int, shape: list[int]) -> dict:
    attributes = {"strides": draw.numbers(1, 3, rank), "dilations": draw.numbers(1, 2, rank)}
    auto_pad = draw.one_of("NOTSET", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")
    if auto_pad.startswith("SAME"):  # onnxruntime pads pools as if they were not dilated
        attributes["dilations"] = [1] * rank
    if auto_pad == "NOTSET":
        attributes["pads"] = draw.numbers(0, 1, 2 * rank)
    else:
        attributes["auto_pad"] = auto_pad
    return attributes


def pool(draw: Draw) -> onnx.ModelProto:
    rank = draw.one_of(1, 2, 2, 2, 3)
    shape = [draw.number(1, 2), draw.number(1, 3), *draw.numbers(5, 8, rank)]
    op = draw.one_of("MaxPool", "AveragePool", "AveragePool", "LpPool")
    attributes = window(draw, rank, shape) | {"kernel_shape": draw.numbers(2, 3, rank)}
    if "auto_pad" not in attributes:
        attributes["ceil_mode"] = draw.number(0, 1)
    if op == "AveragePool":
        attributes["count_include_pad"] = draw.number(0, 1)
    if op == "LpPool":
        attributes["p"] = draw.number(1, 3)
    return draw.model(op, ["x"], shape, **attributes)


def large_pool(draw: Draw) -> onnx.ModelProto:
    """As in pyramid pooling: odd windows, up to the whole map."""
    shape = [draw.number(1, 2), draw.number(1, 3), *draw.numbers(12, 20, 2)]
    op = draw.one_of("MaxPool", "AveragePool", "AveragePool", "LpPool")
    kernel = [draw.one_of(5, 7, 11, side) for side in shape[2:]]
    attributes = {"kernel_shape": kernel, "strides": draw.numbers(1, 7, 2)}
    if draw.maybe():
        attributes["pads"] = [min(side // 2, 2) for side in kernel] * 2
        attributes["ceil_mode"] = draw.number(0, 1)
    if op == "AveragePool":
        attributes["count_include_pad"] = draw.number(0, 1)
    return draw.model(op, ["x"], shape, **attributes)


def conv(draw: Draw) -> onnx.ModelProto:
    rank, groups = draw.one_of(1, 2, 2, 3), draw.number(1, 3)
    cin, cout = groups * draw.number(1, 2), groups * draw.number(1, 3)
    shape = [draw.number(1, 2), cin, *draw.numbers(5, 8, rank)]
    kernel = draw.numbers(1, 3, rank)
    inputs = ["x", draw.constant(draw.normal(cout, cin // groups, *kernel))]
    if draw.maybe():
        inputs.append(draw.constant(draw.normal(cout)))
    return draw.model("Conv", inputs, shape, group=groups, **window(draw, rank, shape))


def conv_transpose(draw: Draw) -> onnx.ModelProto:
    rank, groups = draw.one_of(1, 2, 2, 2, 3), draw.number(1, 3)
    cin, per_group = groups * draw.number(1, 2), draw.number(1, 3)
    shape = [draw.number(1, 2), cin, *draw.numbers(2, 5, rank)]
    kernel = draw.numbers(2, 4, rank)
    inputs = ["x", draw.constant(draw.normal(cin, per_group, *kernel))]
    if draw.maybe():
        inputs.append(draw.constant(draw.normal(per_group * groups)))
    attributes = window(draw, rank, shape) | {"group": groups}
    if draw.maybe():
        attributes["output_padding"] = [
            draw.number(0, max(stride, dilation) - 1)
            for stride, dilation in zip(attributes["strides"], attributes["dilations"], strict=True)
        ]
    return draw.model("ConvTranspose", inputs, shape, **attributes)


def slices(draw: Draw) -> onnx.ModelProto:
    shape = draw.numbers(3, 6, 3)
    axes = draw.rng.permutation(3)[: draw.number(1, 3)].tolist()
    steps = [draw.one_of(1, 2, -1, -2) for _ in axes]
    starts = [draw.one_of(0, 1, -2) if step > 0 else draw.one_of(-1, 2, 99) for step in steps]
    ends = [draw.one_of(99, -1, 3) if step > 0 else draw.one_of(-99, 0) for step in steps]
    inputs = [draw.constant(values, np.int64) for values in (starts, ends, axes, steps)]
    return draw.model("Slice", ["x", *inputs], shape)


def pad(draw: Draw) -> onnx.ModelProto:
    shape = draw.numbers(3, 5, 3)
    mode = draw.one_of("constant", "constant", "reflect", "edge", "wrap")
    low = -1 if mode == "constant" else 0
    inputs = ["x", draw.constant(draw.numbers(low, 2, 6), np.int64)]
    if mode == "constant" and draw.maybe():
        inputs.append(draw.constant(-1.5, np.float32))
    return draw.model("Pad", inputs, shape, mode=mode)


def reduction(draw: Draw) -> onnx.ModelProto:
    shape = draw.numbers(2, 5, 4)
    op = draw.one_of("L1", "L2", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
    axes = draw.rng.permutation(4)[: draw.number(1, 4)]
    signed = [int(axis) - 4 * draw.number(0, 1) for axis in axes]
    inputs = ["x", draw.constant(signed, np.int64)]
    return draw.model(f"Reduce{op}", inputs, shape, keepdims=draw.number(0, 1))


def normalisation(draw: Draw) -> onnx.ModelProto:
    shape = [draw.number(1, 2), 2 * draw.number(1, 3), *draw.numbers(2, 5, 2)]
    op = draw.one_of("Softmax", "LogSoftmax", "LayerNormalization", "InstanceNormalization", "LRN")
    if op == "LayerNormalization":
        axis = draw.number(1, 3)
        inputs = ["x", draw.constant(draw.normal(*shape[axis:]))]
        if draw.maybe():
            inputs.append(draw.constant(draw.normal(*shape[axis:])))
        return draw.model(op, inputs, shape, axis=axis - 4 * draw.number(0, 1))
    if op == "InstanceNormalization":
        inputs = ["x", *(draw.constant(draw.normal(shape[1])) for _ in range(2))]
        return draw.model(op, inputs, shape)
    if op == "LRN":
        return draw.model(op, ["x"], shape, size=2 * draw.number(0, 2) + 1, alpha=0.3)
    return draw.model(op, ["x"], shape, axis=draw.number(-4, 3))


def movement(draw: Draw) -> onnx.ModelProto:
    block = draw.number(1, 3)
    shape = [draw.number(1, 2), block**2 * draw.number(1, 2), block * 2, block * 3]
    op = draw.one_of("DepthToSpace", "SpaceToDepth", "Expand", "Tile", "Flatten", "Gather")
    if op == "Expand":
        return draw.model(op, ["x", draw.constant([2, 1, 1, 1, 1], np.int64)], shape)
    if op == "Tile":
        return draw.model(op, ["x", draw.constant(draw.numbers(1, 2, 4), np.int64)], shape)
    if op == "Flatten":
        return draw.model(op, ["x"], shape, axis=draw.number(-4, 4))
    if op == "Gather":
        axis = draw.number(-4, 3)
        places = draw.rng.integers(-shape[axis], shape[axis], (2, 2))
        return draw.model(op, ["x", draw.constant(places, np.int64)], shape, axis=axis)
    mode = {"mode": draw.one_of("DCR", "CRD")} if op == "DepthToSpace" else {}
    return draw.model(op, ["x"], shape, blocksize=block, **mode)


# How many of each are drawn.
FAMILIES = {
    resize: 90, resize_of_axes: 20, pool: 50, large_pool: 20, conv: 25, conv_transpose: 35,
    slices: 20, pad: 20, reduction: 20, normalisation: 20, movement: 20,
}  # fmt: skip
# Where ONNX and onnxruntime differ: a cubic region over the edge, a transposed window below the
# stride with auto_pad.
REFUSED = {resize: 8, conv_transpose: 4}


@pytest.fixture(scope="module")
def forms():
    """By name: a graph, its input, and what onnxruntime makes of it."""
    found = {}
    for family, count in FAMILIES.items():
        for seed in range(count):
            draw = Draw(seed)
            model = family(draw)
            shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
            x = draw.normal(*shape)
            expected = reference(model, x)
            if expected is not None:
                found[f"{family.__name__}-{seed}"] = model, x, expected
    return found


def reference(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray | None:
    """None where onnxruntime does not take the form."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        (output,) = session.run(None, {"x": x})
    except Exception:  # onnxruntime has one class for each of its codes
        return None
    return output if output.size else None


@pytest.fixture(scope="module")
def library(forms, tmp_path_factory):
    modules = {}
    for name, (model, _, _) in forms.items():
        try:
            modules[name] = import_graph(model)
        except UserError as error:
            print(name, error)
    return Library(modules, tmp_path_factory.mktemp("forms"))


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
def test_all_forms(family, forms, library):
    names = [name for name in forms if name.rpartition("-")[0] == family.__name__]
    assert len(names) > FAMILIES[family] / 2, "onnxruntime takes most of what is drawn"
    refused = set(names) - set(library.entries)
    assert len(refused) <= REFUSED.get(family, 0), refused
    wrong = []
    for name in sorted(set(names) - refused):
        model, x, expected = forms[name]
        (output,) = library.run(name, [x])
        if output.shape != expected.shape:
            wrong.append((name, output.shape, expected.shape))
        elif not np.allclose(output, expected, 1e-4, 1e-5):
            error = float(np.abs(output - expected).max())
            wrong.append((name, error, helper.printable_node(model.graph.node[0]), x.shape))
    assert not wrong, "\n".join(map(str, wrong))
