"""Normalisations: those over a batch have constant statistics, groups are instances."""

from math import prod

import numpy as np

from deploy.reading.graph import Node
from deploy.reading.opsets.rule import Rule, needed, one_output
from deploy.reading.writer import Writer


def _batch_norm(writer: Writer, node: Node, opset: int) -> None:
    """Kept as it is in inference; the step `steps/batch_norm.py` folds it."""
    if node.get("training_mode", 0) or any(node.outputs[1:]):
        raise node.error("it is in training mode; export the network for inference (model.eval())")
    if not node.attributes.pop("spatial", 1):
        raise node.error("it has statistics for each pixel; export it with statistics for each "
                         "channel")  # fmt: skip
    one_output(node)
    for index, what in enumerate(("scale", "bias", "mean", "variance"), 1):
        needed(writer, node, index, what)
    node.attributes = {"epsilon": node.get("epsilon", 1e-5)}
    writer.keep(node)


def _layer_norm(writer: Writer, node: Node, opset: int) -> None:
    one_output(node)
    node.attributes.pop("stash_type", None)
    writer.keep(node)


def _mean_variance(writer: Writer, node: Node, opset: int) -> None:
    """Kept; ONNX's inference does not say that it gives what it takes."""
    kind = writer.graph.types[node.inputs[0]]
    writer.graph.types[node.outputs[0]] = kind
    writer.nodes.append(node)


def _group_norm(writer: Writer, node: Node, opset: int) -> None:
    """Instance norm of the groups, then a scale and a bias: of each group until opset 20, of each
    channel since."""
    x = node.inputs[0]
    shape = writer.graph.shape(x)
    groups, channels = node.get("num_groups"), shape[1]
    if not groups or channels % groups:
        raise node.error(f"its {channels} channels are no whole number of groups")
    flat = writer.constant([shape[0], groups, prod(shape[1:]) // groups])
    ones, zeros = np.ones(groups, np.float32), np.zeros(groups, np.float32)
    y = writer(
        "InstanceNormalization",
        writer("Reshape", x, flat), writer.constant(ones), writer.constant(zeros),
        epsilon=node.get("epsilon", 1e-5),
    )  # fmt: skip
    y = writer("Reshape", y, writer.constant(np.array(shape, np.int64)))
    factors = []
    for index, what in ((1, "scale"), (2, "bias")):
        value = needed(writer, node, index, what).reshape(-1)
        if opset < 21:
            value = np.repeat(value, channels // groups)
        factors.append(writer.constant(value.reshape(channels, *(1 for _ in shape[2:]))))
    writer.end("Add", writer("Mul", y, factors[0]), factors[1])


def _rms_norm(writer: Writer, node: Node, opset: int) -> None:
    x = node.inputs[0]
    axis = node.get("axis", -1) % writer.graph.rank(x)
    axes = writer.constant(np.arange(axis, writer.graph.rank(x), dtype=np.int64))
    mean = writer("ReduceMean", writer("Mul", x, x), axes, keepdims=1)
    root = writer("Sqrt", writer("Add", mean, writer.constant(float(node.get("epsilon", 1e-5)))))
    writer.end("Mul", writer("Div", x, root), node.inputs[1])


RULES: dict[tuple[str, str], Rule] = {
    ("", "BatchNormalization"): _batch_norm,
    ("", "LayerNormalization"): _layer_norm,
    ("", "MeanVarianceNormalization"): _mean_variance,
    ("", "GroupNormalization"): _group_norm,
    ("", "RMSNormalization"): _rms_norm,
}
