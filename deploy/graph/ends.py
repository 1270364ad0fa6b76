"""The two ends of a deployed graph, as ONNX nodes: the camera's image in, the label map out.

Every graph, from the zoo or a user's file, gets its ends here, so that all runtimes compared run
the same graph from uint8 image to uint8 labels.
"""

from dataclasses import dataclass
from itertools import count

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from deploy.metadata import OutputKind, Triple
from deploy.resolution import Resolution
from lut.errors import UserError

IMAGE, TENSOR, LABELS, LOGITS = "image", "tensor", "labels", "logits"
_PREFIX = "hmseg_"  # of the names that the ends add to a graph


@dataclass(frozen=True)
class GraphEnds:
    """What a graph takes and gives: found in its declared input and output."""

    resolution: Resolution
    takes_image: bool  # uint8 NHWC; else float NCHW
    gives_labels: bool  # integer labels from a final ArgMax over the classes; else class scores
    num_classes: int
    scores_size: Resolution


def inspect_ends(model: onnx.ModelProto) -> GraphEnds:
    """Read the ends of a checked, shape-inferred model.

    Accepted: one input, uint8 (1, H, W, 3) or float32 (1, 3, H, W); one output, class scores
    float32 (1, K, h, w), or integer labels whose last nodes are ArgMax over the classes and Cast.
    Raises UserError that says what was found and what is accepted.
    """
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise UserError(
            f"the ONNX graph has {len(inputs)} inputs and {len(graph.output)} outputs; one image "
            "in and one output are supported: cut it with onnx.utils.extract_model"
        )
    resolution, takes_image = _input_layout(inputs[0])
    scores = _argmax_input(graph)
    name = scores or graph.output[0].name
    shapes = {v.name: v for v in (*graph.value_info, *graph.output)}
    if name not in shapes:
        raise UserError(f"the ONNX graph's shape inference does not reach {name!r}; simplify it")
    element, shape = _type_and_shape(shapes[name])
    fixed = min(shape, default=0) > 0
    if not fixed or element != TensorProto.FLOAT or len(shape) != 4 or shape[0] != 1:
        raise UserError(
            f"the ONNX output {graph.output[0].name!r} must be class scores float32 (1, K, h, w), "
            f"or their ArgMax over axis 1; it is {_describe(shapes[name])}"
        )
    if not 2 <= shape[1] <= 255:
        raise UserError(f"the ONNX output has {shape[1]} classes; labels are uint8: 2 to 255")
    size = Resolution(shape[2], shape[3])
    return GraphEnds(resolution, takes_image, scores is not None, shape[1], size)


def free_names(model: onnx.ModelProto) -> None:
    """Rename, in place, every tensor whose name the ends are about to use (``image``, ``tensor``,
    ``labels``, ``logits``, ``hmseg_...``): a user's graph may use any of them for anything."""
    graph = model.graph
    used = {name for node in graph.node for name in (*node.input, *node.output)}
    used.update(v.name for v in (*graph.input, *graph.output, *graph.initializer))
    for name in sorted(used):
        if name in (IMAGE, TENSOR, LABELS, LOGITS) or name.startswith(_PREFIX):
            base = name.removeprefix(_PREFIX)
            new = next(f"inner_{base}_{i}" for i in count() if f"inner_{base}_{i}" not in used)
            used.add(new)
            _rename(graph, name, new)


def name_input(model: onnx.ModelProto, name: str) -> None:
    """Call the input of a graph ``image`` or ``tensor``, in place."""
    _rename(model.graph, _input(model.graph).name, name)


def attach_image_end(
    model: onnx.ModelProto, resolution: Resolution, mean: Triple, std: Triple
) -> None:
    """Replace the float (1, 3, H, W) input by ``image`` uint8 (1, H, W, 3), in place.

    The nodes added compute x / 255, minus `mean`, over `std`, as one multiply and one add. The
    names they use must be free (`free_names`).
    """
    graph = model.graph
    old = _input(graph)
    scale = np.array([1 / (255 * s) for s in std], np.float32).reshape(1, 3, 1, 1)
    shift = np.array([-m / s for m, s in zip(mean, std, strict=True)], np.float32)
    graph.initializer.extend(
        [
            numpy_helper.from_array(scale, _PREFIX + "scale"),
            numpy_helper.from_array(shift.reshape(1, 3, 1, 1), _PREFIX + "shift"),
        ]
    )
    nodes = [
        helper.make_node("Transpose", [IMAGE], [_PREFIX + "nchw"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", [_PREFIX + "nchw"], [_PREFIX + "float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [_PREFIX + "float", _PREFIX + "scale"], [_PREFIX + "scaled"]),
        helper.make_node("Add", [_PREFIX + "scaled", _PREFIX + "shift"], [old.name]),
    ]
    for position, node in enumerate(nodes):
        node.name = f"{_PREFIX}image_end_{node.op_type}"
        graph.node.insert(position, node)
    graph.input.remove(old)
    shape = [1, resolution.height, resolution.width, 3]
    graph.input.insert(0, helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, shape))


def attach_output_end(model: onnx.ModelProto, ends: GraphEnds, kind: OutputKind) -> None:
    """Make the output ``labels`` uint8 (1, H, W) or ``logits`` float32 (1, K, H, W), in place.

    Class scores of another size are first resized to the input's (bilinear, half-pixel centres).
    Of equal scores the lowest class index wins. The names used must be free (`free_names`).
    """
    graph = model.graph
    scores = _argmax_input(graph) or graph.output[0].name
    if ends.gives_labels:  # built anew below, with uint8 at the end
        _drop_nodes_after(graph, scores)
    height, width = ends.resolution
    if ends.scores_size != ends.resolution:
        sizes = np.array([1, ends.num_classes, height, width], np.int64)
        graph.initializer.append(numpy_helper.from_array(sizes, _PREFIX + "sizes"))
        full = LOGITS if kind == "logits" else _PREFIX + LOGITS
        graph.node.append(
            helper.make_node(
                "Resize", [scores, "", "", _PREFIX + "sizes"], [full],
                name=_PREFIX + "output_end_Resize", mode="linear",
                coordinate_transformation_mode="half_pixel",
            )
        )  # fmt: skip
    elif kind == "logits":
        full = LOGITS
        _rename(graph, scores, LOGITS)
    else:
        full = scores
    logits_info = helper.make_tensor_value_info(
        full, TensorProto.FLOAT, [1, ends.num_classes, height, width]
    )
    del graph.output[:]
    if kind == "logits":
        graph.output.append(logits_info)
        return
    if full not in {value.name for value in graph.value_info}:
        # Shape inference stops at an operator it does not know; the size is known here.
        graph.value_info.append(logits_info)
    index = _PREFIX + "class_index"
    graph.node.extend(
        [
            helper.make_node(
                "ArgMax", [full], [index], name=_PREFIX + "output_end_ArgMax", axis=1, keepdims=0
            ),
            helper.make_node(
                "Cast", [index], [LABELS], name=_PREFIX + "output_end_Cast", to=TensorProto.UINT8
            ),
        ]
    )
    shape = [1, height, width]
    graph.output.append(helper.make_tensor_value_info(LABELS, TensorProto.UINT8, shape))


def with_logits_output(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a graph with both ends whose second output, after ``labels``, is the logits.

    A graph that ends in logits is returned as it is.
    """
    scores = _argmax_input(model.graph)
    if scores is None:
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    height, width = _type_and_shape(copy.graph.output[0])[1][-2:]
    classes = next(
        _type_and_shape(value)[1][1] for value in copy.graph.value_info if value.name == scores
    )
    info = helper.make_tensor_value_info(scores, TensorProto.FLOAT, [1, classes, height, width])
    copy.graph.output.append(info)
    return copy


def _input(graph: onnx.GraphProto) -> onnx.ValueInfoProto:
    constants = {tensor.name for tensor in graph.initializer}
    return next(value for value in graph.input if value.name not in constants)


def _input_layout(value: onnx.ValueInfoProto) -> tuple[Resolution, bool]:
    element, shape = _type_and_shape(value)
    fixed = min(shape, default=0) > 0
    if (
        fixed
        and element == TensorProto.UINT8
        and len(shape) == 4
        and (shape[0], shape[3]) == (1, 3)
    ):
        return Resolution(shape[1], shape[2]), True
    if fixed and element == TensorProto.FLOAT and len(shape) == 4 and shape[:2] == (1, 3):
        return Resolution(shape[2], shape[3]), False
    raise UserError(
        f"the ONNX input {value.name!r} is {_describe(value)}; supported are an image uint8 "
        "(1, H, W, 3) and a tensor float32 (1, 3, H, W), with every size fixed at export"
    )


def _argmax_input(graph: onnx.GraphProto) -> str | None:
    """The class scores of a graph whose output is their ArgMax over axis 1, else None."""
    producers = {name: node for node in graph.node for name in node.output}
    node = producers.get(graph.output[0].name)
    while node is not None and node.op_type in ("Cast", "Squeeze"):
        node = producers.get(node.input[0])
    if node is None or node.op_type != "ArgMax":
        return None
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if attributes.get("axis", 0) not in (1, -3) or attributes.get("select_last_index", 0):
        raise UserError(
            "the ONNX output is an ArgMax over another axis than the classes (axis 1), or the last "
            "of equal scores wins in it; export class scores (1, K, h, w) instead"
        )
    return str(node.input[0])


def _drop_nodes_after(graph: onnx.GraphProto, tensor: str) -> None:
    after = {tensor}
    for node in list(graph.node):
        if after.intersection(node.input):
            after.update(node.output)
            graph.node.remove(node)


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        if value.name == old:
            value.name = new


def _type_and_shape(value: onnx.ValueInfoProto) -> tuple[int, tuple[int, ...]]:
    tensor = value.type.tensor_type
    # A symbolic or missing size reads as 0.
    return tensor.elem_type, tuple(
        dim.dim_value if dim.HasField("dim_value") else 0 for dim in tensor.shape.dim
    )


def _describe(value: onnx.ValueInfoProto) -> str:
    tensor = value.type.tensor_type
    element = TensorProto.DataType.Name(tensor.elem_type).lower()
    sizes = (str(d.dim_value) if d.HasField("dim_value") else "?" for d in tensor.shape.dim)
    return f"{element} ({', '.join(sizes)})"
