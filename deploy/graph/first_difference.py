"""Where one reading of a graph first leaves another: a bisection over the graph's nodes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from deploy.graph.expected import Expectations, Expected
from deploy.noise import Deviation
from deploy.precision import FP32, Precision

# Compiles a graph from the image to one float tensor and runs it on an image: no batch axis.
RunPrefix = Callable[[onnx.ModelProto, NDArray[Any]], NDArray[np.float32]]


@dataclass(frozen=True)
class Difference:
    """The first node whose output differs, and how."""

    node: str
    op: str
    output: str
    how: str

    def __str__(self) -> str:
        return f"first difference: {self.op} {self.node!r} (output {self.output!r}), {self.how}"


def first_difference(
    model: onnx.ModelProto,
    image: NDArray[Any],
    run_prefix: RunPrefix,
    precision: Precision = FP32,
) -> Difference | None:
    """The first node, in the graph's order, whose output leaves onnxruntime's by more than the
    precision allows, has another shape, or cannot be compiled by itself.

    Each probe cuts the graph at one node and compiles the prefix the way the whole is compiled, so
    that fusion stays as it was; log2(nodes) probes. None where no float output differs. A
    difference that a later node undoes can be missed: bisection assumes that it persists. Raises
    UserError where onnxruntime fails.
    """
    cut = onnx.utils.Extractor(onnx.shape_inference.infer_shapes(model, strict_mode=True))

    def probe(node: onnx.NodeProto) -> str:
        prefix = cut.extract_model([model.graph.input[0].name], [node.output[0]])
        expected = Expectations(prefix, {"": image}, most=0, maps=precision.maps)[""]
        try:
            got = run_prefix(prefix, image)
        except Exception as error:  # whatever the compiler raises: this is where it does
            return f"which cannot be compiled up to here: {' '.join(str(error).split())[:200]}"
        return how_they_differ(expected, got, precision)

    return bisect(_float_nodes(model), probe)


def how_they_differ(expected: Expected, got: NDArray[Any], precision: Precision = FP32) -> str:
    """In words; empty where they do not."""
    wanted = expected.scores
    if got.shape != wanted.shape:
        return f"shape {got.shape} instead of {wanted.shape}"
    allowed = precision.allowed(expected.noise, Deviation.size(wanted).largest)
    error = Deviation.between(got, wanted)
    if error.within(allowed):
        return ""
    if not error.largest <= allowed.largest:
        return f"error {error.largest:.3g}, allowed {allowed.largest:.3g}"
    return f"root mean square error {error.rms:.3g}, allowed {allowed.rms:.3g}"


def bisect(
    nodes: Sequence[onnx.NodeProto], probe: Callable[[onnx.NodeProto], str]
) -> Difference | None:
    """The first node of which `probe` says how it differs, assuming that all after it do too."""
    if not nodes or not (how := probe(nodes[-1])):
        return None
    good, bad = -1, len(nodes) - 1
    while bad - good > 1:
        middle = (good + bad) // 2
        found = probe(nodes[middle])
        if found:
            bad, how = middle, found
        else:
            good = middle
    node = nodes[bad]
    return Difference(node.name, node.op_type, node.output[0], how)


def _float_nodes(model: onnx.ModelProto) -> Sequence[onnx.NodeProto]:
    """Nodes, in the graph's order, that give a float tensor which depends on the image and whose
    first axis is the batch of one image: tokens of (N, 1, C) have none that a run could leave
    out."""
    types = {v.name: v.type.tensor_type for v in (*model.graph.value_info, *model.graph.output)}
    reached, nodes = {model.graph.input[0].name}, []
    for node in model.graph.node:
        if reached.intersection(node.input):
            reached.update(node.output)
            if _is_batch_of_floats(types.get(node.output[0])):
                nodes.append(node)
    return nodes


def _is_batch_of_floats(tensor: onnx.TypeProto.Tensor | None) -> bool:
    if tensor is None or tensor.elem_type != onnx.TensorProto.FLOAT:
        return False
    return [axis.dim_value for axis in tensor.shape.dim[:1]] == [1]
