"""What is not supported is one line that names the node, and never something else."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from deploy.graph.importer import import_graph
from lut.errors import UserError


def graph_of(
    *nodes: onnx.NodeProto, shape=(1, 4, 6, 6), dtype=TensorProto.FLOAT, opset=20, **constants
) -> onnx.ModelProto:
    """From ``x`` to ``y``; the type of ``y`` is not said."""
    graph = helper.make_graph(
        list(nodes), "small", [helper.make_tensor_value_info("x", dtype, shape)],
        [onnx.ValueInfoProto(name="y")],
        [numpy_helper.from_array(np.array(value), name) for name, value in constants.items()],
    )  # fmt: skip
    imports = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=imports, ir_version=9)


def node(op: str, *more: str, name="it", outputs=("y",), **attributes) -> onnx.NodeProto:
    return helper.make_node(op, ["x", *more], list(outputs), name=name, **attributes)


WEIGHT = np.zeros((4, 4, 3, 3), np.float32)
CASES = {
    "parameter": (graph_of(node("Reshape", "x")), r"its shape is computed at run time"),
    "shape": (graph_of(node("Reshape", "s"), s=[1, 5, -1]), r"has no shape \(1, 5, 28\)"),
    "indices": (
        graph_of(node("MaxPool", outputs=("y", "i"), kernel_shape=[2, 2])), "the indices"
    ),
    "attribute": (graph_of(node("Relu", alpha=1.0)), r"'alpha' is not supported"),
    "choice": (graph_of(node("Pad", "p", mode="fancy"), p=[0] * 8), r"mode='fancy'"),
    "half": (graph_of(node("Cast", to=TensorProto.FLOAT16)), "float32 to float16"),
    "half constant": (graph_of(node("Add", "h"), h=np.float16(1)), "float16 is not supported"),
    "axis": (graph_of(node("Softmax", axis=4)), "axis 4 of a tensor of 4 axes"),
    "channels": (
        graph_of(node("Conv", "w"), w=np.zeros((4, 3, 1, 1), np.float32)), "on 4 channels"
    ),
    "empty": (graph_of(node("Slice", "z", "z"), z=[0]), "empty"),
    "bomb": (graph_of(node("Expand", "s"), s=[1 << 20, 1 << 20, 1, 1, 1, 1]), "too large"),
    "range": (
        graph_of(
            helper.make_node("Range", ["a", "b", "c"], ["r"], name="it"), node("Add", "r"),
            a=0.0, b=2.0**40, c=1.0,
        ),
        "a range from",
    ),
    "large map": (graph_of(node("Conv", "w"), shape=(1, 4, 2, 2), w=WEIGHT), "larger resolution"),
    "scales": (
        graph_of(
            node(
                "Resize", "", "s", mode="linear", coordinate_transformation_mode="align_corners"
            ),
            s=np.array([1, 1, 0.6, 0.6], np.float32),
        ),
        "give it sizes",
    ),
    "training": (graph_of(node("Dropout", "", "t"), t=True), r"model\.eval\(\)"),
    "index": (graph_of(node("Gather", "i"), i=[5]), "out of range"),
    "types": (graph_of(node("Add", "d"), d=np.float64(1)), "cannot be imported"),
    "string": (graph_of(node("Add", "t"), t=np.array("a", object)), "object is not supported"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_node_is_named(case, capfd):
    model, message = CASES[case]
    with pytest.raises(UserError, match=message) as caught:
        import_graph(model)
    assert str(caught.value).startswith("node 'it' (")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_names_do_not_reach_the_terminal_as_they_are():
    name = "\x1b[2J\nfoo"
    for model in (graph_of(node("Relu", alpha=1.0, name=name)), graph_of(node(name, name=name))):
        with pytest.raises(UserError) as caught:
            import_graph(model)
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("opset", [12, 21])
def test_other_opsets(opset):
    with pytest.raises(UserError, match=f"opset {opset} .*opset_version=20"):
        import_graph(graph_of(node("Relu"), opset=opset))


@pytest.mark.parametrize("shape", [(1, 3, "h", 8), (1, 3, 0, 8)])
def test_inputs_without_a_size(shape):
    with pytest.raises(UserError, match="the input 'x' is"):
        import_graph(graph_of(node("Relu"), shape=shape))


def test_a_result_that_is_not_what_the_file_says():
    model = graph_of(node("Relu"))
    model.graph.output[0].CopyFrom(
        helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 4, 6, 5))
    )
    with pytest.raises(UserError, match=r"gives float32 \(1, 4, 6, 6\) where the file says"):
        import_graph(model)


def test_an_input_that_is_not_there():
    with pytest.raises(UserError, match="its input 'z' is not in the graph"):
        import_graph(graph_of(node("Add", "z")))


def test_what_nothing_reads_is_left_out():
    model = graph_of(node("Relu"), node("Exp", outputs=("unused",)))
    assert "exp" not in import_graph(model)["main"].script()
