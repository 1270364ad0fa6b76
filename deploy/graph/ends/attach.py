"""The two ends of a deployed graph, as ONNX nodes: the camera's image in, the label map out.

Every graph, from the zoo or a user's file, gets its ends here, so that all runtimes compared run
the same graph from uint8 image to labels.
"""

from collections.abc import Mapping, Sequence
from itertools import count

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from deploy.graph.ends.inspect import GraphEnds
from deploy.graph.ends.tensors import inputs_of, permutation, type_and_shape
from deploy.metadata import Metadata, Values
from deploy.resolution import Resolution

IMAGE, TENSOR, LABELS, LOGITS, MASKS = "image", "tensor", "labels", "logits", "masks"
_NAMES = (IMAGE, TENSOR, LABELS, LOGITS, MASKS)
_PREFIX = "hmseg_"  # of the names that the ends add to a graph
_TO_NCHW, _TO_NHWC = [0, 3, 1, 2], [0, 2, 3, 1]
_ELEMENTS = {np.uint8: TensorProto.UINT8, np.uint16: TensorProto.UINT16}


def attach_ends(model: onnx.ModelProto, ends: GraphEnds, metadata: Metadata) -> str:
    """Give a graph its two ends, in place, and leave away what they do not need.

    In: ``image`` uint8 (1, H, W, C), or with the input ``tensor`` that, float32 (1, C, H, W), both
    whatever the layout of the graph's own input. Out: ``logits`` float32 (1, K, H, W), ``labels``
    (1, H, W), uint8 or above 255 classes uint16, or ``masks`` uint8 (1, K, H, W). Class scores of
    another size are first resized to the image's (bilinear, half-pixel centres). Of equal scores
    the lowest class wins. Returns what the scores (1, K, h, w) that the output end is made of, or
    are the output, are called.
    """
    renamed = _free_names(model.graph)
    scores = renamed.get(ends.scores, ends.scores)
    _keep_what_makes(model.graph, scores)
    renamed = _attach_input_end(model.graph, ends, metadata)
    scores = renamed.get(scores, scores)
    planar = _planar_scores(model.graph, ends, scores)
    return _attach_output_end(model.graph, ends, metadata, planar)


def with_logits_output(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a graph with both ends whose second output, after ``labels`` or ``masks``, is the
    logits.

    A graph that ends in logits is returned as it is.
    """
    scores = _decided_from(model.graph)
    if scores is None:
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    height, width = type_and_shape(copy.graph.output[0])[1][-2:]
    classes = next(
        type_and_shape(value)[1][1] for value in copy.graph.value_info if value.name == scores
    )
    info = helper.make_tensor_value_info(scores, TensorProto.FLOAT, [1, classes, height, width])
    copy.graph.output.append(info)
    return copy


def _decided_from(graph: onnx.GraphProto) -> str | None:
    """The class scores that a deployed graph's labels or masks are made of."""
    makers = {name: node for node in graph.node for name in node.output}
    node = makers.get(graph.output[0].name)
    while node is not None and node.op_type in ("Cast", "Squeeze"):
        node = makers.get(node.input[0])
    decides = node is not None and node.op_type in ("ArgMax", "Greater")
    return str(node.input[0]) if node is not None and decides else None


def _free_names(graph: onnx.GraphProto) -> Mapping[str, str]:
    """Rename every tensor whose name the ends are about to use (``image``, ``labels``,
    ``hmseg_...``): a user's graph may use any of them for anything. Returns the new names."""
    for node in graph.node:
        if node.name.startswith(_PREFIX):  # names of nodes are unique too
            node.name = f"inner_{node.name.removeprefix(_PREFIX)}"
    used = {name for node in graph.node for name in (*node.input, *node.output)}
    used.update(v.name for v in (*graph.input, *graph.output, *graph.initializer))
    renamed = {}
    for name in sorted(used):
        if name in _NAMES or name.startswith(_PREFIX):
            base = name.removeprefix(_PREFIX)
            new = next(f"inner_{base}_{i}" for i in count() if f"inner_{base}_{i}" not in used)
            used.add(new)
            renamed[name] = new
    _rename(graph, renamed)
    return renamed


def _keep_what_makes(graph: onnx.GraphProto, tensor: str) -> None:
    """Leave away every node and weight that a tensor is not made of."""
    needed, nodes = {tensor}, []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            nodes.append(node)
    if len(nodes) < len(graph.node):
        kept = nodes[::-1]
        del graph.node[:]
        graph.node.extend(kept)
    given = {value.name for value in inputs_of(graph)}
    made = {name for node in graph.node for name in node.output}
    for tensors in (graph.initializer, graph.input, graph.value_info):
        wanted = [t for t in tensors if t.name in needed or t.name in made or t.name in given]
        if len(wanted) < len(tensors):
            del tensors[:]
            tensors.extend(wanted)


def _attach_input_end(
    graph: onnx.GraphProto, ends: GraphEnds, metadata: Metadata
) -> Mapping[str, str]:
    """Returns the new names of tensors that it renames."""
    (old,) = inputs_of(graph)
    taken, as_image = ends.input, metadata.input == "image"
    # Where the graph's own input is what the network takes, its name alone changes.
    if as_image == taken.is_uint8 and as_image == taken.channels_last:
        named = {old.name: IMAGE if as_image else TENSOR}
        _rename(graph, named)
        return named
    graph.input.remove(old)
    graph.input.insert(0, _input_info(taken.resolution, taken.channels, as_image=as_image))
    planes = _PREFIX + "planes" if taken.channels_last else old.name
    nodes: list[onnx.NodeProto] = []
    if not as_image:
        planes = TENSOR
    elif taken.is_uint8:
        nodes.append(helper.make_node("Transpose", [IMAGE], [planes], perm=_TO_NCHW))
    else:
        assert metadata.mean
        assert metadata.std
        nodes += _normalisation(graph, metadata.mean, metadata.std, planes)
    renamed = _read_planes(graph, old.name, planes) if taken.channels_last else {}
    if taken.channels_last and not renamed:
        nodes.append(helper.make_node("Transpose", [planes], [old.name], perm=_TO_NHWC))
    for position, node in enumerate(nodes):
        again = "_back" if node.output[0] == old.name and taken.channels_last else ""
        node.name = f"{_PREFIX}image_end_{node.op_type}{again}"
        graph.node.insert(position, node)
    return renamed


def _input_info(size: Resolution, channels: int, *, as_image: bool) -> onnx.ValueInfoProto:
    height, width = size
    if as_image:
        return helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, [1, height, width, channels])
    return helper.make_tensor_value_info(TENSOR, TensorProto.FLOAT, [1, channels, height, width])


def _normalisation(
    graph: onnx.GraphProto, mean: Values, std: Values, planes: str
) -> list[onnx.NodeProto]:
    """From the image to normalised planes: x / 255, minus `mean`, over `std`, as one multiply and
    one add."""
    shape = (1, len(mean), 1, 1)
    scale = np.array([1 / (255 * s) for s in std], np.float32).reshape(shape)
    shift = np.array([-m / s for m, s in zip(mean, std, strict=True)], np.float32).reshape(shape)
    graph.initializer.extend(
        [
            numpy_helper.from_array(scale, _PREFIX + "scale"),
            numpy_helper.from_array(shift, _PREFIX + "shift"),
        ]
    )
    return [
        helper.make_node("Transpose", [IMAGE], [_PREFIX + "nchw"], perm=_TO_NCHW),
        helper.make_node("Cast", [_PREFIX + "nchw"], [_PREFIX + "float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [_PREFIX + "float", _PREFIX + "scale"], [_PREFIX + "scaled"]),
        helper.make_node("Add", [_PREFIX + "scaled", _PREFIX + "shift"], [planes]),
    ]


def _read_planes(graph: onnx.GraphProto, old: str, planes: str) -> Mapping[str, str]:
    """Where all that is done with the (1, H, W, C) input `old` is to make planes (1, C, H, W) of
    it, as in files from TensorFlow, read those. Returns the new names, none where there is more."""
    readers = [node for node in graph.node if old in node.input]
    if any(n.op_type != "Transpose" or list(permutation(n, 4)) != _TO_NCHW for n in readers):
        return {}
    renamed = {node.output[0]: planes for node in readers}
    for node in readers:
        graph.node.remove(node)
    kept = [value for value in graph.value_info if value.name not in renamed]
    del graph.value_info[:]
    graph.value_info.extend(kept)
    _rename(graph, renamed)
    return renamed


def _planar_scores(graph: onnx.GraphProto, ends: GraphEnds, scores: str) -> str:
    """The scores as (1, K, h, w)."""
    shape, axis = ends.scores_shape, ends.class_axis
    if len(shape) == 4 and (axis == 1 or (axis is None and shape[1] == 1 == shape[0])):
        return scores
    if axis == len(shape) - 1:
        order = [*range(len(shape) - 3), len(shape) - 1, len(shape) - 3, len(shape) - 2]
        planar = _PREFIX + "planar"
        _append(graph, "Transpose", [scores], planar, perm=order)
        if len(shape) == 4:
            return planar
        scores = planar
    batched = _PREFIX + "batched"
    whole = [1, ends.num_scores, *ends.scores_size]
    _append(graph, "Reshape", [scores, _constant(graph, "scores_shape", whole)], batched)
    return batched


def _attach_output_end(
    graph: onnx.GraphProto, ends: GraphEnds, metadata: Metadata, planar: str
) -> str:
    scores = planar
    if ends.negated:
        scores = _PREFIX + "negated"
        _append(graph, "Neg", [planar], scores)
    shape = [1, ends.num_scores, *ends.resolution]
    if ends.scores_size != ends.resolution:
        full = LOGITS if metadata.output == "logits" else _PREFIX + LOGITS
        _append(
            graph, "Resize", [scores, "", "", _constant(graph, "sizes", shape)], full,
            mode="linear", coordinate_transformation_mode="half_pixel",
        )  # fmt: skip
    elif metadata.output == "logits":
        full = LOGITS
        _rename(graph, {scores: LOGITS})
        planar = LOGITS if planar == scores else planar
    else:
        full = scores
    logits_info = helper.make_tensor_value_info(full, TensorProto.FLOAT, shape)
    del graph.output[:]
    if metadata.output == "logits":
        graph.output.append(logits_info)
        return planar
    if full not in {value.name for value in graph.value_info}:
        # Shape inference stops at an operator it does not know; the size is known here.
        graph.value_info.append(logits_info)
    element, index = _ELEMENTS[metadata.found_dtype], _PREFIX + "class_index"
    if metadata.threshold is None:
        _append(graph, "ArgMax", [full], index, axis=1, keepdims=0)
    else:
        threshold = np.array(metadata.threshold, np.float32)
        graph.initializer.append(numpy_helper.from_array(threshold, _PREFIX + "threshold"))
        _append(graph, "Greater", [full, _PREFIX + "threshold"], _PREFIX + "above")
        index = _PREFIX + "above"
    name = metadata.output
    if metadata.output == "labels" and metadata.threshold is not None:
        _append(graph, "Squeeze", [index, _constant(graph, "axes", [1])], _PREFIX + "squeezed")
        index = _PREFIX + "squeezed"
    _append(graph, "Cast", [index], name, to=element)
    graph.output.append(helper.make_tensor_value_info(name, element, [1, *metadata.output_shape]))
    return planar


def _append(
    graph: onnx.GraphProto, op: str, inputs: Sequence[str], output: str, **attributes: object
) -> None:
    name = f"{_PREFIX}output_end_{op}"
    graph.node.append(helper.make_node(op, inputs, [output], name=name, **attributes))


def _constant(graph: onnx.GraphProto, name: str, values: Sequence[int]) -> str:
    array: NDArray[np.int64] = np.array(values, np.int64)
    graph.initializer.append(numpy_helper.from_array(array, _PREFIX + name))
    return _PREFIX + name


def _rename(graph: onnx.GraphProto, renamed: Mapping[str, str]) -> None:
    if not renamed:
        return
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name in renamed:
                    names[index] = renamed[name]
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = renamed.get(value.name, value.name)
