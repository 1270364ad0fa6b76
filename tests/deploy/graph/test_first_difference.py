import numpy as np
import onnx
import pytest

from deploy.graph.ends import IMAGE
from deploy.graph.first_difference import first_difference
from deploy.graph.reference import OnnxSession
from tests.deploy.graphs import photo


def honest(prefix: onnx.ModelProto, image: np.ndarray) -> np.ndarray:
    return OnnxSession(prefix).run(image)[0]


def float_nodes(graph: onnx.ModelProto) -> list[onnx.NodeProto]:
    floats = {
        value.name
        for value in graph.graph.value_info
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }
    return [node for node in graph.graph.node if node.output[0] in floats]


def wrong_from(graph: onnx.ModelProto, first: int, error: float):
    """A side whose outputs are wrong from the first-th float node on."""
    order = [node.output[0] for node in float_nodes(graph)]
    probes: list[str] = []

    def run(prefix: onnx.ModelProto, image: np.ndarray) -> np.ndarray:
        name = prefix.graph.output[0].name
        probes.append(name)
        output = honest(prefix, image)
        if order.index(name) >= first:
            output = output.copy()
            output.flat[0] += error
        return output

    return run, probes


def test_no_difference(graph):
    assert first_difference(graph, photo(), honest) is None


@pytest.mark.parametrize("error", [1.0, np.nan])
@pytest.mark.parametrize("position", [0, 1, 37, 90, -1])
def test_the_first_wrong_node_is_found(graph, position, error):
    nodes = float_nodes(graph)
    position %= len(nodes)
    run, probes = wrong_from(graph, position, error)
    found = first_difference(graph, photo(), run)
    assert found is not None
    assert found.output == nodes[position].output[0]
    assert found.op == nodes[position].op_type
    assert len(probes) <= np.ceil(np.log2(len(nodes))) + 1
    text = str(found)
    assert text.startswith(f"first difference: {found.op} ")
    assert "\n" not in text


def test_prefixes_start_at_the_image(graph):
    seen = []

    def run(prefix: onnx.ModelProto, image: np.ndarray) -> np.ndarray:
        seen.append([value.name for value in prefix.graph.input])
        return honest(prefix, image) + 1

    first_difference(graph, photo(), run)
    assert seen
    assert all(names == [IMAGE] for names in seen)
