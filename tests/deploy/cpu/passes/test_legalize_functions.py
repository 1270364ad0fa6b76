"""Functions left to TVM's loops: against double precision, NaN and the ends of the range too."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from deploy.graph.importer import import_graph
from tests.deploy.graph.importer.library import Library
from tests.deploy.graphs import model_of

SHAPE = (3, 47, 96)  # three axes: no map, so no kernel of ours
TRUTHS = {
    "Exp": torch.exp, "Sigmoid": torch.sigmoid, "Erf": torch.erf, "Tanh": torch.tanh,
    "Gelu none": torch.nn.functional.gelu,
    "Gelu tanh": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    "Swish": torch.nn.functional.silu,
}  # fmt: skip


def model(name):
    kind, _, approximate = name.partition(" ")
    options = {"approximate": approximate} if approximate else {}
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)
    end = [helper.make_empty_tensor_value_info("y")]
    if kind == "Swish":
        nodes = [helper.make_node("Sigmoid", ["x"], ["s"]), helper.make_node("Mul", "xs", ["y"])]
    else:
        nodes = [helper.make_node(kind, ["x"], ["y"], **options)]
    return model_of(nodes, [given], end, {}, 20)


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    modules = {
        name: import_graph(onnx.shape_inference.infer_shapes(model(name), strict_mode=True))
        for name in TRUTHS
    }
    return Library(modules, tmp_path_factory.mktemp("functions"))


@pytest.mark.parametrize("name", TRUTHS)
def test_a_function_is_the_truth_but_for_a_few_roundings(library, name):
    x = np.random.default_rng(0).uniform(-12, 12, SHAPE).astype(np.float32)
    x[0, 0, :4] = 0, -0.0, 1e-30, -1e-30
    (found,) = library.run(name, [x])
    truth = TRUTHS[name](torch.from_numpy(x).double()).numpy()
    # What rounds 1 + erf is multiplied by x.
    rounding = 2e-7 * np.abs(x).max() if "Gelu" in name else 1e-37
    np.testing.assert_allclose(found, truth, rtol=1e-6, atol=rounding)


@pytest.mark.parametrize("name", TRUTHS)
def test_the_ends_of_the_range(library, name):
    x = np.zeros(SHAPE, np.float32)
    far = 100 if "Gelu" in name else 1e30  # of 1 + erf a rounding is left, times x
    x[0, 0, :5] = np.nan, -200, 200, -far, far
    (found,) = library.run(name, [x])
    truth = TRUTHS[name](torch.from_numpy(x).double()).numpy()
    truth = np.clip(truth, None, 3.4e38)  # of an exponential; NaN stays
    rounding = 2e-7 * np.abs(x[0, 0]) if name[0] in "GS" else 3e-36
    assert np.isnan(found[0, 0, 0])
    assert (np.abs(found - truth)[0, 0, 1:] <= (3e-3 * np.abs(truth)[0, 0] + rounding)[1:]).all()
