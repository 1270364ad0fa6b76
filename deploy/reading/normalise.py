"""From a user's file to the normal form: a list of steps, from top to bottom.

The normal form: opset 20, float32, every tensor's size known, constants as initializers, no shape
arithmetic, branches, functions or batch norm, and nothing left out at the end of a node's inputs.
docs/decisions/0036-normalising-onnx.md says why it is made this way.
"""

from collections.abc import Callable

import onnx

from deploy.reading.axes import real_inputs
from deploy.reading.file import UserFile, opset_of, skeleton
from deploy.reading.finite import check_finite
from deploy.reading.float32 import float32_type
from deploy.reading.functions import inline_functions
from deploy.reading.graph import Graph, TensorType, node_of
from deploy.reading.settle import fold_constants, settle
from deploy.reading.steps.adaptive_pool import adaptive_pools_as_matrices
from deploy.reading.steps.batch_norm import fold_batch_norms
from deploy.reading.steps.moved_bytes import pairs_around_moved_bytes
from deploy.reading.steps.tidy import remove_dead_nodes, remove_no_ops
from deploy.reading.steps.transposes import cancel_transposes
from deploy.reading.steps.unpool import unpool_by_masks
from deploy.reading.subgraphs import read_by
from deploy.reading.tensors import to_array

STEPS: tuple[Callable[[Graph], None], ...] = (
    pairs_around_moved_bytes,
    remove_no_ops,
    fold_constants,
    cancel_transposes,
    unpool_by_masks,
    adaptive_pools_as_matrices,
    fold_batch_norms,
    remove_no_ops,
    remove_dead_nodes,
)


def normalise(file: UserFile) -> Graph:
    """The normal form of an opened file. Raises UserError in one line that names the node."""
    opset = opset_of(file.model)
    graph = _graph_of(file.model)
    remove_dead_nodes(graph)
    check_finite(graph)
    settle(graph, opset)
    for step in STEPS:
        step(graph)
    return graph


def _graph_of(model: onnx.ModelProto) -> Graph:
    inputs = real_inputs(model.graph)
    flat = inline_functions(skeleton(model)).graph
    nodes = [node_of(proto) for proto in flat.node]
    used = {name for node in nodes for name in read_by(node)} | {v.name for v in flat.output}
    constants = {
        tensor.name: to_array(tensor, f"the weight '{tensor.name}'")
        for tensor in (*model.graph.initializer, *flat.initializer)
        if tensor.name in used
    }
    types = {
        value.name: float32_type(
            TensorType(
                value.type.tensor_type.elem_type,
                tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim),
            )
        )
        for value in inputs
    }
    outputs = [value.name for value in flat.output]
    graph = Graph(nodes, {}, types, [value.name for value in inputs], outputs, list(outputs))
    for name, array in constants.items():
        graph.set_constant(name, array)
    return graph
