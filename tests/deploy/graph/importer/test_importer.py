import numpy as np
import onnx
import pytest
import tvm
from onnx import TensorProto, helper
from tvm import relax

from deploy.cpu.pipeline import compile_graph
from deploy.graph.importer import import_graph
from deploy.graph.job import Job
from deploy.graph.reference import OnnxSession
from deploy.target import Target
from lut.errors import UserError
from tests.deploy.graphs import deployable, model_of, photo, segmenter


def run_graph(model: onnx.ModelProto, target: Target, image: np.ndarray) -> np.ndarray:
    """What the compiled graph makes of one input, without a batch axis."""
    return compile_graph(Job(model, target)).load().run("main", image)


def operators(module: tvm.IRModule) -> list[str]:
    """Names of the operators called in ``main``, in order."""
    found: list[str] = []

    def visit(expr: relax.Expr) -> None:
        if isinstance(expr, relax.Call) and isinstance(expr.op, tvm.ir.Op):
            found.append(expr.op.name)

    relax.analysis.post_order_visit(module["main"], visit)
    return found


def clip_graph(folder, low: float | None, high: float | None) -> onnx.ModelProto:
    """float image - Clip(low, high) - logits; an image of 0 to 255 is -2 to 3 before the clip."""
    bounds = {"low": low, "high": high}
    weights = {n: np.array(v, np.float32) for n, v in bounds.items() if v is not None}
    inputs = ["x", *(name if name in weights else "" for name in bounds)]
    while inputs[-1] == "":
        inputs.pop()
    shape = [1, 3, 64, 64]
    model = model_of(
        [helper.make_node("Clip", inputs, ["out"], name="clip")],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, shape)],
        weights,
    )
    return deployable(model, folder, "logits", (0.4, 0.4, 0.4), (0.2, 0.2, 0.2))


def test_clips_of_the_zoo_become_one_clip_each(graph):
    clips = [node for node in graph.graph.node if node.op_type == "Clip"]
    found = operators(import_graph(graph))
    assert len(clips) > 20
    assert found.count("relax.clip") == len(clips)
    assert not {"relax.isnan", "relax.where", "relax.maximum", "relax.minimum"} & set(found)


@pytest.mark.parametrize(
    ("low", "high", "operator"),
    [
        (0.0, 6.0, "clip"),
        (-1.0, 0.5, "clip"),
        (0.0, np.inf, "nn.relu"),
        (0.0, np.nan, "nn.relu"),
        (0.0, None, "nn.relu"),
        (-np.inf, 1.0, "minimum"),
        (np.nan, 1.0, "minimum"),
        (None, 1.0, "minimum"),
        (-0.5, None, "maximum"),
        (1.0, 0.5, "full"),
    ],
)
def test_clip_numbers(low, high, operator, cpu, tmp_path):
    model = clip_graph(tmp_path, low, high)
    assert f"relax.{operator}" in operators(import_graph(model))
    image = photo()
    x = (image.astype(np.float32) / 255 - 0.4) / 0.2
    # In ONNX a bound that is NaN or missing is no bound.
    below = -np.inf if low is None or np.isnan(low) else low
    above = np.inf if high is None or np.isnan(high) else high
    # Of bounds in the wrong order the upper one wins.
    expected = np.minimum(np.maximum(x, below), above).transpose(2, 0, 1)
    np.testing.assert_allclose(run_graph(model, cpu, image), expected, atol=1e-5)


def test_constants_are_inside(small_graph):
    (image,) = import_graph(small_graph)["main"].params
    assert [int(side) for side in image.ty.shape] == [1, 64, 64, 3]


@pytest.mark.parametrize("layout", ["float", "uint8"])
@pytest.mark.parametrize("end", ["scores", "argmax-squeeze"])
def test_numbers_of_a_user_graph(layout, end, cpu, tmp_path):
    for output in ("labels", "logits"):
        model = deployable(segmenter(layout=layout, end=end), tmp_path, output)
        image = photo()
        got = run_graph(model, cpu, image)
        expected = OnnxSession(model).run(image)[0]
        assert got.dtype == expected.dtype
        if output == "logits":
            np.testing.assert_allclose(got, expected, atol=1e-4)
        else:
            assert (got != expected).mean() < 1e-3


def test_unsupported_operators_are_named(tmp_path):
    standard = [
        helper.make_node("Softmax", ["features"], ["soft"], axis=1, name="softmax"),
        helper.make_node("DeformConv", ["soft", "w3", "offset"], ["activated"], name="deform"),
    ]
    model = segmenter(stride=1, extra=standard)
    model.graph.initializer.extend(
        [
            onnx.numpy_helper.from_array(np.zeros((8, 8, 1, 1), np.float32), "w3"),
            onnx.numpy_helper.from_array(np.zeros((1, 2, 64, 64), np.float32), "offset"),
        ]
    )
    model.opset_import[0].version = 19
    with pytest.raises(UserError, match="DeformConv") as caught:
        import_graph(deployable(model, tmp_path))
    assert "Softmax" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_operators_of_another_domain_are_named(small_graph):
    model = onnx.ModelProto()
    model.CopyFrom(small_graph)
    for node in model.graph.node:
        if node.op_type == "Clip":
            node.domain, node.op_type = "custom.domain", "MyClip"
    with pytest.raises(UserError, match=r"custom\.domain\.MyClip \(node clip\)"):
        import_graph(model)


def test_a_graph_that_does_not_fit_is_one_clear_line(small_graph, capfd):
    """A weight of another shape."""
    model = onnx.ModelProto()
    model.CopyFrom(small_graph)
    weight = next(t for t in model.graph.initializer if t.name == "w2")
    weight.CopyFrom(onnx.numpy_helper.from_array(np.zeros((5, 7, 1, 1), np.float32), "w2"))
    with pytest.raises(UserError, match=r"node 'conv2' \(Conv\): ") as caught:
        import_graph(model)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    assert capfd.readouterr().out == ""
