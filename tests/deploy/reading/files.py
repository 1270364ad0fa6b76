"""Small ONNX files for the tests of reading, and the comparison that they all rest on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from deploy.reading.axes import real_inputs
from deploy.reading.file import UserFile, complete, opset_of
from deploy.reading.graph import to_model
from deploy.reading.normalise import normalise
from deploy.resolution import Resolution

RNG = np.random.default_rng(0)


class Network:
    """Nodes put behind each other; the input is `x`, by default float32 (1, 3, 8, 12)."""

    def __init__(
        self,
        opset: int = 17,
        shape: Sequence[Any] = (1, 3, 8, 12),
        element: int = TensorProto.FLOAT,
        ir_version: int = 8,
    ) -> None:
        self.opset, self.ir_version = opset, ir_version
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.input = helper.make_tensor_value_info("x", element, shape)
        self.functions: list[onnx.FunctionProto] = []
        self.domains: dict[str, int] = {}

    def const(self, value: Any) -> str:
        name = f"c{len(self.constants)}"
        array = np.asarray(value)
        if array.dtype == np.float64 and not isinstance(value, np.ndarray):
            array = array.astype(np.float32)
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def weights(self, *shape: int, dtype: Any = np.float32) -> str:
        return self.const(RNG.standard_normal(shape).astype(dtype))

    def __call__(
        self, op: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes: Any
    ) -> Any:
        number = len(self.nodes)
        names = [f"t{number}_{i}" for i in range(outputs)]
        if domain:
            self.domains.setdefault(domain, 1)
        self.nodes.append(
            helper.make_node(op, inputs, names, name=f"{op}_{number}", domain=domain, **attributes)
        )
        return names[0] if outputs == 1 else names

    def model(self, *outputs: str) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "network",
            [self.input],
            [helper.make_empty_tensor_value_info(name) for name in outputs],
            self.constants,
        )
        for value in graph.output:  # of an unknown type, as far as the checker lets us
            value.type.tensor_type.elem_type = TensorProto.FLOAT
        imports = [helper.make_opsetid("", self.opset)]
        imports += [helper.make_opsetid(*item) for item in self.domains.items()]
        return helper.make_model(
            graph, opset_imports=imports, ir_version=self.ir_version, functions=self.functions
        )


def normal_form(model: onnx.ModelProto, resolution: Resolution | None = None) -> onnx.ModelProto:
    """The normal form of a model, made in this process, checked to be one."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    opset_of(copy)
    normal = to_model(normalise(complete(Path("file.onnx"), copy, resolution)))
    check_normal(normal)
    return normal


def check_normal(model: onnx.ModelProto) -> None:
    """What the normal form promises of every graph."""
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 20)]
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    assert not constants & {value.name for value in graph.input}
    types = {v.name: v.type.tensor_type for v in (*graph.value_info, *graph.input, *graph.output)}
    for node in graph.node:
        assert node.op_type not in ("Constant", "Shape", "Dropout", "BatchNormalization", "If")
        assert not node.domain
        assert node.input[-1]
        for name in node.output:
            dims = types[name].shape.dim
            assert all(dim.HasField("dim_value") for dim in dims)
    wide = (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
    assert not any(kind.elem_type in wide for kind in types.values())
    assert not any(tensor.data_type in wide for tensor in graph.initializer)


def run(session: ort.InferenceSession, x: NDArray[Any]) -> list[NDArray[Any]]:
    value = session.get_inputs()[0]
    dtype = {"tensor(float16)": np.float16, "tensor(double)": np.float64}.get(value.type, x.dtype)
    found: list[NDArray[Any]] = session.run(None, {value.name: x.astype(dtype)})
    return found


def assert_same(
    model: onnx.ModelProto,
    resolution: Resolution | None = None,
    *,
    tolerance: float = 1e-5,
    image: NDArray[Any] | None = None,
) -> onnx.ModelProto:
    """onnxruntime computes the same of a file, untouched, and of its normal form; the latter."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    file = complete(Path("file.onnx"), copy, resolution)
    normal = normal_form(model, resolution)
    (value,) = real_inputs(file.model.graph)
    shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    if image is None:
        integers = normal.graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
        image = (
            RNG.integers(0, 256, shape).astype(np.uint8)
            if integers
            else RNG.standard_normal(shape).astype(np.float32)
        )
    ours = UserFile(Path("normal.onnx"), normal).session()
    wanted, found = run(file.session(), image), run(ours, image)
    assert [v.name for v in normal.graph.output] == [v.name for v in model.graph.output]
    assert len(wanted) == len(found)
    for a, b in zip(wanted, found, strict=True):
        assert a.shape == b.shape
        scale = float(np.abs(a.astype(np.float64)).max(initial=1e-30))
        assert (
            np.abs(a.astype(np.float64) - b.astype(np.float64)).max(initial=0) <= tolerance * scale
        )
    return normal


def ops(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]
