"""A graph as low precision computes it, in onnxruntime: every stored number rounded, sums not.

What that moves the class scores by is the precision's own noise, as two evaluations in float32 show
float32's (`deploy.graph.expected`). None of our kernels has a part in it.
"""

from collections.abc import Iterable

import onnx
from onnx import TensorProto, helper

from lut.ops import DType

# What sums products: its operands are rounded, and what comes out, unless it is a class score.
SUMS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
_TYPES: dict[DType, int] = {"bfloat16": TensorProto.BFLOAT16}


def with_rounded_maps(graph: onnx.ModelProto, dtype: DType) -> onnx.ModelProto:
    """A copy in which every float that a node makes is rounded to `dtype` and back, and so are the
    weights of its sums; the class scores, and what is made of them, stay float32, as they do in a
    compiled network (`deploy.graph.place.score_values`).

    It rounds more often than a compiled network, which keeps what it fuses.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(onnx.shape_inference.infer_shapes(graph))
    floats = {
        value.name
        for value in (*copy.graph.value_info, *copy.graph.output)
        if value.type.tensor_type.elem_type == TensorProto.FLOAT
    }
    whole, weights = scores_of(copy), {tensor.name for tensor in copy.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    rounded: dict[str, str] = {}  # weights
    for node in copy.graph.node:
        if node.op_type in SUMS:
            for place, name in enumerate(node.input[:2]):
                if name in weights:
                    if name not in rounded:
                        rounded[name] = f"{name}_rounded"
                        nodes += _rounding(name, rounded[name], _TYPES[dtype])
                    node.input[place] = rounded[name]
        made = [name for name in node.output if name in floats and name not in whole]
        for place, name in enumerate(node.output):
            if name in made:
                node.output[place] = f"{name}_exact"
        nodes.append(node)
        for name in made:
            nodes += _rounding(f"{name}_exact", name, _TYPES[dtype])
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    return copy


def scores_of(graph: onnx.ModelProto) -> set[str]:
    """The values that the last sum of products makes, and all that are made of those alone."""
    makers = {name: node for node in graph.graph.node for name in node.output}
    todo: list[str] = [value.name for value in graph.graph.output]
    found: set[str] = set()
    while todo:
        name = todo.pop()
        node = makers.get(name)
        if name in found or node is None:
            continue
        found.update(node.output)
        if node.op_type not in SUMS:
            todo += node.input
    return found


def _rounding(given: str, made: str, kind: int) -> Iterable[onnx.NodeProto]:
    between = f"{made}_low"
    yield helper.make_node("Cast", [given], [between], to=kind, name=f"{made}_narrow")
    yield helper.make_node("Cast", [between], [made], to=TensorProto.FLOAT, name=f"{made}_widen")
