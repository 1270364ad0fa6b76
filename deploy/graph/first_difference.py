"""Where a compiled network first leaves its reference: a bisection over the graph's prefixes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from deploy.graph.reference import OnnxSession
from deploy.precision import FP32, Precision

# Compiles a graph from the image to one float tensor and runs it on an image: no batch axis.
RunPrefix = Callable[[onnx.ModelProto, NDArray[Any]], NDArray[np.float32]]


@dataclass(frozen=True)
class Difference:
    """The first node whose output differs."""

    node: str
    op: str
    output: str
    max_error: float
    tolerance: float

    def __str__(self) -> str:
        return (
            f"first difference: {self.op} {self.node!r} (output {self.output!r}), error "
            f"{self.max_error:.3g}, allowed {self.tolerance:.3g}"
        )


def first_difference(
    model: onnx.ModelProto,
    image: NDArray[Any],
    run_prefix: RunPrefix,
    precision: Precision = FP32,
) -> Difference | None:
    """The first node, in the graph's order, whose output leaves onnxruntime's by more than the
    precision allows.

    Each probe cuts the graph at one node and compiles the prefix the way the whole is compiled, so
    that fusion stays as it was; log2(nodes) probes. None where no float output differs. A
    difference that a later node undoes can be missed: bisection assumes that it persists.
    """
    cut = onnx.utils.Extractor(onnx.shape_inference.infer_shapes(model, strict_mode=True))
    nodes = _float_nodes(model)

    def probe(index: int) -> Difference | None:
        node = nodes[index]
        prefix = cut.extract_model([model.graph.input[0].name], [node.output[0]])
        expected = OnnxSession(prefix).run(image)[0]
        error = float(np.abs(run_prefix(prefix, image).astype(np.float64) - expected).max())
        peak = max(1.0, float(np.abs(expected).max()))
        tolerance = precision.relative_tolerance * peak
        # Written so that NaN differs.
        if error <= tolerance:
            return None
        return Difference(node.name, node.op_type, node.output[0], error, tolerance)

    found = probe(len(nodes) - 1)
    if found is None:
        return None
    good, bad = -1, len(nodes) - 1
    while bad - good > 1:
        middle = (good + bad) // 2
        difference = probe(middle)
        if difference is None:
            good = middle
        else:
            bad, found = middle, difference
    return found


def _float_nodes(model: onnx.ModelProto) -> Sequence[onnx.NodeProto]:
    """Nodes, in the graph's order, that give a float tensor which depends on the image."""
    types = {
        v.name: v.type.tensor_type.elem_type for v in (*model.graph.value_info, *model.graph.output)
    }
    reached, nodes = {model.graph.input[0].name}, []
    for node in model.graph.node:
        if reached.intersection(node.input):
            reached.update(node.output)
            if types.get(node.output[0]) == onnx.TensorProto.FLOAT:
                nodes.append(node)
    return nodes
