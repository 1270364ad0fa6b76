"""Files of bfloat16 or double, which onnxruntime's convolutions do not know, as float32 files."""

import onnx
from onnx import TensorProto, numpy_helper

from deploy.reading.axes import real_inputs
from deploy.reading.external import tensors_of
from deploy.reading.float32 import ATTRIBUTES, to_float32
from deploy.reading.tensors import to_array

_KINDS = (TensorProto.BFLOAT16, TensorProto.DOUBLE)


def read_as_float32(model: onnx.ModelProto) -> None:
    """Make a file whose image is bfloat16 or double one of float32, in place; others stay.

    Every bfloat16 is a float32; a double is rounded to the nearest.
    """
    kinds = {value.type.tensor_type.elem_type for value in real_inputs(model.graph)}
    if kinds.isdisjoint(_KINDS):
        return
    for tensor in tensors_of(model):
        if tensor.data_type in _KINDS:
            array = to_float32(to_array(tensor, f"the weight '{tensor.name}'"))
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    for function in model.functions:
        _retype_nodes(function.node)
    _retype_graph(model.graph)


def _retype_graph(graph: onnx.GraphProto) -> None:
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type in _KINDS:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    _retype_nodes(graph.node)


def _retype_nodes(nodes: list[onnx.NodeProto]) -> None:
    for attribute in (a for node in nodes for a in node.attribute):
        if attribute.name in ATTRIBUTES and attribute.i in _KINDS:
            attribute.i = TensorProto.FLOAT
        if attribute.HasField("g"):
            _retype_graph(attribute.g)
        for graph in attribute.graphs:
            _retype_graph(graph)
