"""Operators that move numbers about: their parameters are inputs, and all of them are written."""

from math import prod

import numpy as np

from deploy.reading.graph import Node, TensorType
from deploy.reading.infer import output_types
from deploy.reading.opsets.rule import Rule, integers, needed, one_output, parameter
from deploy.reading.writer import Writer

_REDUCE = ("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean",
           "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare")  # fmt: skip


def _axes(writer: Writer, node: Node, opset: int, first_as_input: int) -> list[int] | None:
    """The axes of a node, counted from 0, None where they are left out; no attribute is left."""
    if opset < first_as_input:
        axes = node.attributes.pop("axes", None)
    else:
        value = parameter(writer, node, 1, "axes")
        axes = None if value is None else integers(value)
    if axes is None:
        return None
    rank = writer.graph.rank(node.inputs[0])
    if node.op == "Unsqueeze":
        rank += len(axes)
    return [axis + rank if axis < 0 else axis for axis in axes]


def _squeeze(writer: Writer, node: Node, opset: int) -> None:
    axes = _axes(writer, node, opset, 13)
    if axes is None:
        axes = [i for i, side in enumerate(writer.graph.shape(node.inputs[0])) if side == 1]
    node.inputs = [node.inputs[0], writer.constant(np.array(axes, np.int64))]
    writer.keep(node)


def _reduce(writer: Writer, node: Node, opset: int) -> None:
    axes = _axes(writer, node, opset, 13 if node.op == "ReduceSum" else 18)
    if not axes and node.attributes.pop("noop_with_empty_axes", 0):
        _each_alone(writer, node)
        return
    if not axes:
        axes = list(range(writer.graph.rank(node.inputs[0])))
    node.attributes.pop("noop_with_empty_axes", None)
    node.inputs = [node.inputs[0], writer.constant(np.array(sorted(axes), np.int64))]
    writer.keep(node)


def _each_alone(writer: Writer, node: Node) -> None:
    """A reduction over no axis: what it does with each number before and after the sum."""
    x = node.inputs[0]
    if node.op == "ReduceSumSquare":
        writer.end("Mul", x, x)
    else:
        op = {"ReduceL1": "Abs", "ReduceL2": "Abs", "ReduceLogSum": "Log"}.get(node.op)
        writer.end(op or "Identity", x)


def _split(writer: Writer, node: Node, opset: int) -> None:
    shape = writer.graph.shape(node.inputs[0])
    axis = node.get("axis", 0)
    if not -len(shape) <= axis < len(shape):
        raise node.error(f"its axis {axis} is none of its input's")
    side, parts = shape[axis], len(node.outputs)
    if opset < 13:
        sizes = node.attributes.pop("split", None)
    else:
        value = parameter(writer, node, 1, "sizes")
        sizes = None if value is None else integers(value)
    if sizes is None:
        largest = -(-side // parts)
        sizes = [largest] * (parts - 1) + [side - largest * (parts - 1)]
    node.attributes.pop("num_outputs", None)
    node.inputs = [node.inputs[0], writer.constant(np.array(sizes, np.int64))]
    writer.keep(node)


def _slice(writer: Writer, node: Node, opset: int) -> None:
    source = node.inputs[0]
    shape = writer.graph.shape(source)
    if opset < 10:
        starts, ends = node.attributes.pop("starts"), node.attributes.pop("ends")
        axes, steps = node.attributes.pop("axes", None), None
    else:
        starts = integers(needed(writer, node, 1, "starts"))
        ends = integers(needed(writer, node, 2, "ends"))
        values = [parameter(writer, node, 3, "axes"), parameter(writer, node, 4, "steps")]
        axes, steps = (None if value is None else integers(value) for value in values)
    axes = [a + len(shape) if a < 0 else a for a in axes or range(len(starts))]
    steps = steps or [1] * len(starts)
    if not len(starts) == len(ends) == len(axes) == len(steps) or not all(steps):
        raise node.error("its starts, ends, axes and steps do not fit each other")
    if max(axes, default=0) >= len(shape) or min(axes, default=0) < 0:
        raise node.error("an axis is none of its input's")
    for i, (axis, step) in enumerate(zip(axes, steps, strict=True)):
        if step > 0:  # what lies beyond the ends is written as the end
            starts[i], ends[i], _ = slice(starts[i], ends[i], step).indices(shape[axis])
            ends[i] = max(starts[i], ends[i])
    lists = (starts, ends, axes, steps)
    node.inputs = [source, *(writer.constant(np.array(v, np.int64)) for v in lists)]
    writer.keep(node)


def _pad(writer: Writer, node: Node, opset: int) -> None:
    source = node.inputs[0]
    shape = writer.graph.shape(source)
    rank = len(shape)
    mode = node.get("mode", "constant")
    if opset < 11:
        pads = node.attributes.pop("pads", None) or node.attributes.pop("paddings", [])
        value = node.attributes.pop("value", 0.0)
        node.inputs = [source, "", writer.constant(float(value)) if value else ""]
    else:
        pads = integers(needed(writer, node, 1, "pads"))
        fill = parameter(writer, node, 2, "value")
        if fill is not None and not fill.any():
            node.inputs[2] = ""
        some = parameter(writer, node, 3, "axes")
        if some is not None:
            given = [axis % rank for axis in integers(some)]
            if len(pads) != 2 * len(given):
                raise node.error("its pads do not fit its axes")
            full = [0] * (2 * rank)
            for i, axis in enumerate(given):
                full[axis], full[axis + rank] = pads[i], pads[i + len(given)]
            pads = full
    if len(pads) != 2 * rank:
        raise node.error("its pads do not fit its input's axes")
    if min(pads) < 0 and mode == "constant":  # a negative pad cuts
        axes = list(range(rank))
        starts = [-min(p, 0) for p in pads[:rank]]
        ends = [side + min(p, 0) for side, p in zip(shape, pads[rank:], strict=True)]
        ones = [1] * rank
        lists = [writer.constant(np.array(v, np.int64)) for v in (starts, ends, axes, ones)]
        source = writer("Slice", source, *lists)
        pads = [max(p, 0) for p in pads]
    node.inputs = [source, writer.constant(np.array(pads, np.int64)), *node.inputs[2:3]]
    writer.keep(node)


def _reshape(writer: Writer, node: Node, opset: int) -> None:
    """With the shape that it comes to: no 0, no -1."""
    needed(writer, node, 1, "shape")
    (kind,) = output_types(writer.graph, node, 20)
    if kind is None or prod(kind.shape) != prod(writer.graph.shape(node.inputs[0])):
        raise node.error("its input does not have the numbers for its shape; the file may be made "
                         "for another --resolution")  # fmt: skip
    shape = writer.constant(np.array(kind.shape, np.int64))
    writer.end("Reshape", node.inputs[0], shape)


def _parameters(*indices: int) -> Rule:
    """A rule for operators whose form stays: inputs that must be constants."""

    def rule(writer: Writer, node: Node, opset: int) -> None:
        for index in indices:
            parameter(writer, node, index, f"input {index}")
        writer.keep(node)

    return rule


def _gather(writer: Writer, node: Node, opset: int) -> None:
    """Constant indices are looked at, and counted from 0."""
    shape = writer.graph.shape(node.inputs[0])
    axis = node.get("axis", 0)
    indices = writer.graph.constants.get(node.inputs[1])
    if indices is not None and indices.size and -len(shape) <= axis < len(shape):
        side = shape[axis]
        if indices.min() < -side or indices.max() >= side:
            worst = indices.max() if indices.max() >= side else indices.min()
            raise node.error(f"its index {worst} lies outside the {side} of axis {axis}")
        positive = np.where(indices < 0, indices + side, indices).astype(np.int64)
        node.inputs[1] = writer.constant(positive)
    writer.keep(node)


def _gather_nd(writer: Writer, node: Node, opset: int) -> None:
    indices = writer.graph.constants.get(node.inputs[1])
    if indices is not None and indices.size:
        batch, shape = node.get("batch_dims", 0), writer.graph.shape(node.inputs[0])
        sides = np.array(shape[batch : batch + indices.shape[-1]])
        if len(sides) != indices.shape[-1] or ((indices < -sides) | (indices >= sides)).any():
            raise node.error("an index lies outside its input")
    writer.keep(node)


def _top_k(writer: Writer, node: Node, opset: int) -> None:
    if opset < 10:
        k = node.attributes.pop("k")
        node.inputs = [node.inputs[0], writer.constant([k])]
    needed(writer, node, 1, "k")
    node.outputs = [name or writer.graph.fresh(node.inputs[0]) for name in node.outputs]
    while len(node.outputs) < 2:
        node.outputs.append(writer.graph.fresh(node.inputs[0]))
    writer.keep(node)


def _cast(writer: Writer, node: Node, opset: int) -> None:
    source = writer.graph.types[node.inputs[0]]
    to = writer.graph.types[node.inputs[1]].element if node.op == "CastLike" else node.get("to")
    if TensorType(to, source.shape) == source:
        writer.end("Identity", node.inputs[0])
    else:
        writer.end("Cast", node.inputs[0], to=to)


def _space_to_depth(writer: Writer, node: Node, opset: int) -> None:
    """Since opset 28 also with the channels of a block together (CRD)."""
    if node.get("mode", "DCR") == "DCR":
        node.attributes.pop("mode", None)
        writer.keep(node)
        return
    (n, c, h, w), b = writer.graph.shape(node.inputs[0]), node.get("blocksize")
    blocks = writer("Reshape", node.inputs[0], writer.constant([n, c, h // b, b, w // b, b]))
    turned = writer("Transpose", blocks, perm=[0, 1, 3, 5, 2, 4])
    writer.end("Reshape", turned, writer.constant([n, c * b * b, h // b, w // b]))


def _scatter(writer: Writer, node: Node, opset: int) -> None:
    node.op = "ScatterElements"
    writer.keep(node)


def _dropout(writer: Writer, node: Node, opset: int) -> None:
    training = parameter(writer, node, 2, "training mode")
    if training is not None and training.any():
        raise node.error("it is in training mode; export the network for inference")
    one_output(node)
    writer.end("Identity", node.inputs[0])


def _grid_sample(writer: Writer, node: Node, opset: int) -> None:
    mode = node.get("mode", "linear" if opset >= 20 else "bilinear")
    node.attributes["mode"] = {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode)
    writer.keep(node)


RULES: dict[tuple[str, str], Rule] = {
    **{("", op): _reduce for op in _REDUCE},
    ("", "Squeeze"): _squeeze,
    ("", "Unsqueeze"): _squeeze,
    ("", "Split"): _split,
    ("", "Slice"): _slice,
    ("", "Pad"): _pad,
    ("", "Reshape"): _reshape,
    ("", "Expand"): _parameters(1),
    ("", "Tile"): _parameters(1),
    ("", "CumSum"): _parameters(1),
    ("", "OneHot"): _parameters(1, 2),
    ("", "Trilu"): _parameters(1),
    ("", "ConstantOfShape"): _parameters(0),
    ("", "Gather"): _gather,
    ("", "GatherElements"): _gather,
    ("", "GatherND"): _gather_nd,
    ("", "TopK"): _top_k,
    ("", "Cast"): _cast,
    ("", "CastLike"): _cast,
    ("", "SpaceToDepth"): _space_to_depth,
    ("", "Scatter"): _scatter,
    ("", "Dropout"): _dropout,
    ("", "GridSample"): _grid_sample,
}
