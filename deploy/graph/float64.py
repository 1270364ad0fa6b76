"""A graph in double precision: the truth that float32's own error is measured from.

Not fast and not complete: convolutions, pools and resizes are torch's and numpy's, the rest is
`onnx.reference`. A graph with another operator has no truth, and the caller does without.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from deploy.graph.float64_ops import OPERATORS, attributes_of
from deploy.graph.float64_resize import Array, NoTruthError

# What onnx.reference computes with whole arrays, in the type that it is given.
_NUMPY = (
    "Abs Add And ArgMax ArgMin Ceil Clip Concat ConstantOfShape Cos DepthToSpace Div Elu Equal Exp "
    "Expand Flatten Floor Gather GatherElements GatherND Gemm GlobalAveragePool GlobalMaxPool "
    "Greater GreaterOrEqual Identity InstanceNormalization LeakyRelu Less LessOrEqual Log "
    "LogSoftmax MatMul Max Mean Min Mod Mul Neg Not Or Pad Pow PRelu Reciprocal ReduceL1 ReduceL2 "
    "ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Round Shape "
    "Sign Sin Slice Softmax Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tanh Tile "
    "Transpose Unsqueeze Where Xor"
)
_REFERENCE = frozenset(_NUMPY.split())


def evaluate(
    model: onnx.ModelProto, given: Array, names: Sequence[str] = (), start: str = ""
) -> list[Array]:
    """The tensors `names` (by default the outputs) of a graph, every float in double.

    `given`, with its batch axis, is the one input, or the tensor `start`. Raises NoTruthError for
    an operator that is not known here.
    """
    graph = model.graph
    wanted = list(names) or [value.name for value in graph.output]
    constants = {tensor.name: tensor for tensor in graph.initializer}
    if not start:
        (start,) = (value.name for value in graph.input if value.name not in constants)
    values = {start: _double(given)}
    nodes = _needed(graph.node, wanted, start)
    left = Counter(name for node in nodes for name in node.input)
    left.update(wanted)
    opsets = {entry.domain: entry.version for entry in model.opset_import}

    def read(name: str) -> Array | None:
        if not name:
            return None
        if name in values:
            return values[name]
        if name not in constants:
            raise NoTruthError(f"{name!r} does not follow from {start!r}")
        return _double(numpy_helper.to_array(constants[name]))

    with np.errstate(all="ignore"), torch.no_grad():
        for node in nodes:
            outputs = _run(node, [read(name) for name in node.input], opsets)
            for name in node.input:
                left[name] -= 1
                if not left[name]:
                    values.pop(name, None)
            values.update((n, v) for n, v in zip(node.output, outputs, strict=False) if left[n])
    return [values[name] for name in wanted]


def _needed(
    nodes: Sequence[onnx.NodeProto], wanted: Sequence[str], start: str
) -> list[onnx.NodeProto]:
    """Those that lead from `start` to what is wanted, in their order."""
    needed, chosen = set(wanted) - {start}, []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            needed.update(name for name in node.input if name != start)
            chosen.append(node)
    return chosen[::-1]


def multiply_adds(model: onnx.ModelProto) -> float:
    """Of the convolutions and matrix products of a shape-inferred graph; infinite where a size is
    not known."""
    graph = model.graph
    shapes = {
        v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in (*graph.value_info, *graph.output, *graph.input)
    }
    shapes |= {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    total = 0.0
    for node in graph.node:
        if node.op_type not in ("Conv", "ConvTranspose", "MatMul", "Gemm"):
            continue
        source, weight, out = (shapes.get(n) for n in (*node.input[:2], node.output[0]))
        if source is None or weight is None or out is None or 0 in (*source, *weight, *out):
            return math.inf
        if node.op_type == "ConvTranspose":
            total += math.prod(source) * math.prod(weight[1:])
        elif node.op_type == "Conv":
            total += math.prod(out) * math.prod(weight[1:])
        else:
            transposed = attributes_of(node).get("transA", 0)
            total += math.prod(out) * source[-2 if transposed else -1]
    return total


def _double(array: Array) -> Array:
    return array.astype(np.float64) if array.dtype.kind not in "iub" else array


def _run(
    node: onnx.NodeProto, inputs: list[Array | None], opsets: Mapping[str, int]
) -> Sequence[Array]:
    ours = node.domain in ("", "ai.onnx")
    if ours and node.op_type in OPERATORS:
        return [OPERATORS[node.op_type](attributes_of(node), *inputs)]
    if not ours or node.op_type not in _REFERENCE:
        raise NoTruthError(f"{node.op_type} {node.name!r} is not evaluated in double")
    names = list(dict.fromkeys(name for name in node.input if name))
    graph = helper.make_graph(
        [node],
        "node",
        [helper.make_empty_tensor_value_info(name) for name in names],
        [helper.make_empty_tensor_value_info(name) for name in node.output],
    )
    feeds = dict(zip(node.input, inputs, strict=True))
    try:
        outputs = ReferenceEvaluator(graph, opsets=dict(opsets)).run(
            None, {name: feeds[name] for name in names}
        )
    except Exception as error:  # it raises whatever numpy and its operators happen to raise
        raise NoTruthError(f"{node.op_type} {node.name!r}: {error}") from error
    return [_double(np.asarray(output)) for output in outputs]
