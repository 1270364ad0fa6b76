import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from deploy.graph.ends import IMAGE
from deploy.graph.first_difference import first_difference
from deploy.graph.reference import OnnxSession
from lut.errors import UserError
from tests.deploy.graphs import deployable, photo, segmenter


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


@pytest.mark.parametrize(("position", "error"), [(0, 1.0), (1, np.nan), (37, 1.0), (-1, 1.0)])
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


class TestOfASmallGraph:
    def found(self, graph: onnx.ModelProto, change) -> str:
        """`change` is made to the output of each prefix."""

        def run(prefix: onnx.ModelProto, image: np.ndarray) -> np.ndarray:
            return change(prefix, honest(prefix, image))

        return str(first_difference(graph, photo(), run))

    def test_the_tolerance_follows_the_tensors_own_size(self, small_graph):
        """Not that of 1: an error of a ten-thousandth of small numbers is one."""

        def off(factor):
            return lambda prefix, output: output * np.float32(factor)

        assert "first difference: Transpose" not in self.found(small_graph, off(1 + 1e-4))
        assert "allowed" in self.found(small_graph, off(1 + 1e-4))
        assert self.found(small_graph, off(1 + 1e-7)) == "None"

    def test_another_shape_is_a_difference(self, small_graph):
        text = self.found(small_graph, lambda _, output: output[..., :-1])
        assert "shape" in text
        assert "instead of" in text

    def test_a_prefix_that_cannot_be_compiled_is_named(self, small_graph):
        def fail(prefix: onnx.ModelProto, output: np.ndarray) -> np.ndarray:
            if any(node.op_type == "Clip" for node in prefix.graph.node):
                raise ValueError("no\nsuch kernel")
            return output

        text = self.found(small_graph, fail)
        assert text.startswith("first difference: Clip 'clip'")
        assert "cannot be compiled up to here: no such kernel" in text

    def test_nothing_is_asked_of_tensors_without_a_batch_axis(self, tmp_path):
        """Their first axis is no image's: a run would give all of it and the judge see a part."""
        turned, back = (
            helper.make_node("Transpose", [given], [made], name=made, perm=[1, 0, 2, 3])
            for given, made in [("features", "turned"), ("positive", "activated")]
        )
        relu = helper.make_node("Relu", ["turned"], ["positive"], name="positive")
        graph = deployable(segmenter(extra=[turned, relu, back]), tmp_path)
        seen = []

        def run(prefix: onnx.ModelProto, image: np.ndarray) -> np.ndarray:
            seen.append(prefix.graph.output[0].name)
            return honest(prefix, image) + any(n.name == "positive" for n in prefix.graph.node)

        found = first_difference(graph, photo(), run)
        assert found is not None
        assert found.node == "activated"
        assert not {"turned", "positive"} & set(seen)

    def test_where_onnxruntime_fails_it_is_a_line(self):
        model = segmenter(extra=[
            helper.make_node("Gather", ["features", "w9"], ["activated"], name="pick", axis=1)
        ])  # fmt: skip
        model.graph.initializer.append(numpy_helper.from_array(np.array([0, 99]), "w9"))
        del model.graph.node[-1], model.graph.output[:]
        model.graph.output.append(
            helper.make_tensor_value_info("activated", TensorProto.FLOAT, [1, 2, 8, 8])
        )
        given = np.zeros((3, 64, 64), np.float32)
        with pytest.raises(UserError, match=r"onnxruntime (fails on|cannot run) this .*indices"):
            first_difference(model, given, honest)
