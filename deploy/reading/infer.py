"""The types of what a node makes, by ONNX's own inference, and the bound on their sizes."""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import defs, helper, numpy_helper
from onnx.shape_inference import infer_node_outputs

from deploy.reading.graph import OPSET, Graph, Node, TensorType, proto_of
from deploy.reading.text import one_line, size_text

LARGEST_TENSOR = 4 << 30  # bytes; a 4096x8192 image of 32 float32 channels
_LARGEST_PARAMETER = 4096  # elements of a constant whose values inference may ask for


def infer(graph: Graph, node: Node, opset: int = OPSET) -> None:
    """Enter the types of a node's outputs; those of its inputs are known.

    Raises UserError where the node is wrong by ONNX's rules, where a size depends on the image, and
    where an output takes more than `LARGEST_TENSOR`.
    """
    for name, kind in zip(node.outputs, output_types(graph, node, opset), strict=False):
        if not name:
            continue
        if kind is None:
            raise node.error(
                "the size of what it makes depends on the image, or is not known to ONNX's shape "
                "inference; every size must be fixed before the network runs: cut the graph before "
                "it (onnx.utils.extract_model)"
            )
        if kind.bytes > LARGEST_TENSOR:
            raise node.error(
                f"what it makes, {shape_text(kind.shape)}, takes {size_text(kind.bytes)}; at most "
                f"{size_text(LARGEST_TENSOR)} are accepted: choose a smaller resolution"
            )
        graph.types[name] = kind


def output_types(graph: Graph, node: Node, opset: int) -> list[TensorType | None]:
    """A node's outputs' types, None where they are not static."""
    try:
        schema = defs.get_schema(node.op, opset, node.domain)
    except defs.SchemaError:
        raise node.error(
            f"opset {opset} has no such operator; export the network in ONNX's own operators"
        ) from None
    types, data = {}, {}
    for name in node.inputs:
        if not name:
            continue
        types[name] = helper.make_tensor_type_proto(*graph.types[name])
        value = graph.constants.get(name)
        if value is not None and value.size <= _LARGEST_PARAMETER:
            data[name] = numpy_helper.from_array(np.asarray(value, order="C"), name)
    try:
        found = infer_node_outputs(
            schema, proto_of(node), types, data,
            opset_imports=[helper.make_opsetid("", opset)], ir_version=10,
        )  # fmt: skip
    except Exception as error:  # what the C++ inference raises has several classes
        raise node.error(f"it is wrong by ONNX's rules ({one_line(error)})") from error
    return [_static(found.get(name)) for name in node.outputs]


def shape_text(shape: Sequence[int]) -> str:
    """A shape in a message: "1x19x256x512"."""
    return "x".join(str(side) for side in shape) or "a number"


def _static(kind: onnx.TypeProto | None) -> TensorType | None:
    if kind is None or not kind.HasField("tensor_type") or not kind.tensor_type.HasField("shape"):
        return None
    dims = kind.tensor_type.shape.dim
    if not all(d.HasField("dim_value") and d.dim_value >= 0 for d in dims):
        return None
    return TensorType(kind.tensor_type.elem_type, tuple(d.dim_value for d in dims))
