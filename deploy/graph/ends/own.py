"""The ends that a user's own file has: what its input takes for an image, and what its output is
for class scores. What was made of the file is held to both."""

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from deploy.graph.ends.inspect import GraphEnds
from deploy.metadata import Metadata
from hmseg.data.normalise import planes


def feed(ends: GraphEnds, metadata: Metadata, image: NDArray[np.uint8]) -> NDArray[Any]:
    """What the file's own input takes for an image uint8 (H, W, C): that or its normalised float32
    values, in the file's layout, with a batch axis."""
    given: NDArray[Any] = image.transpose(2, 0, 1)
    if not ends.input.is_uint8:
        assert metadata.mean
        assert metadata.std
        given = planes(image, metadata.mean, metadata.std)
    if ends.input.channels_last:
        given = given.transpose(1, 2, 0)
    return np.ascontiguousarray(given[None])


def in_own_layout(ends: GraphEnds, scores: NDArray[Any]) -> NDArray[Any]:
    """Class scores (1, K, h, w) as the file has them."""
    if ends.class_axis is not None and ends.class_axis == len(ends.scores_shape) - 1:
        scores = scores.transpose(0, 2, 3, 1)
    return scores.reshape(ends.scores_shape)


def tail_of(model: onnx.ModelProto, ends: GraphEnds) -> onnx.ModelProto:
    """The nodes between the class scores, which are its input, and the file's output: all that
    reading the file leaves out. Without any the output is the input."""
    graph, needed, nodes = model.graph, {ends.output}, list[onnx.NodeProto]()
    for node in reversed(graph.node):
        # Behind the scores there is one chain of nodes; before them is the network.
        if ends.scores not in needed and needed.intersection(node.output):
            needed.update(node.input)
            nodes.append(node)
    (output,) = (value for value in graph.output if value.name == ends.output)
    taken = helper.make_tensor_value_info(ends.scores, TensorProto.FLOAT, ends.scores_shape)
    weights = [tensor for tensor in graph.initializer if tensor.name in needed]
    tail = helper.make_graph(nodes[::-1], "tail", [taken], [output], weights)
    return helper.make_model(tail, opset_imports=model.opset_import, ir_version=model.ir_version)
