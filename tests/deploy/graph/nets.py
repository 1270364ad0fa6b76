"""Small float ONNX graphs, what is found in them, and what the passes make of them."""

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from deploy.cpu.kernels import CpuKernels
from deploy.cpu.pipeline import compile_graph, make_kernels, network_passes
from deploy.gpu.emulator import EmulatedNetwork
from deploy.gpu.kernels import GpuKernels
from deploy.gpu.pipeline import compile_source
from deploy.graph.importer import import_graph
from deploy.graph.job import Job
from deploy.graph.match import Found
from deploy.graph.passes import passes_before, run_passes
from deploy.graph.place import Kernels, called_kernel, find_operations
from deploy.graph.view import Graph
from deploy.targets import resolve_target
from lut.ops import Operation
from tests.conditions import require_features

TARGETS = ("x86-64-v3", "x86-64-v4")  # AVX2 and AVX-512
RNG = np.random.default_rng(0)


class Net:
    """Builds a graph node by node; every method gives the name of its output."""

    def __init__(self, channels: int, height: int, width: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}
        self.channels = {"x": channels}
        self.inputs = {"x": (1, channels, height, width)}

    def _node(self, op: str, inputs: Sequence[str], channels: int, **attributes) -> str:
        output = f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [output], **attributes))
        self.channels[output] = channels
        return output

    def _weight(self, array: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights[name] = array
        return name

    def node(self, op: str, inputs: Sequence[str], **attributes) -> str:
        """Any other operator that keeps the channels of its first input."""
        return self._node(op, inputs, self.channels[inputs[0]], **attributes)

    def number(self, value: float) -> str:
        """A constant."""
        return self._weight(np.array(value, np.float32))

    def more(self, channels: int, height: int, width: int) -> str:
        """Another input of the graph, which then can be looked at but not compiled."""
        name = f"input{len(self.inputs)}"
        self.inputs[name] = (1, channels, height, width)
        self.channels[name] = channels
        return name

    def conv(
        self, x: str, cout: int, kernel: int = 1, *, stride: int = 1, dilation: int = 1,
        groups: int = 1, act: str = "none", bias: bool = True, pad: int | None = None,
    ) -> str:  # fmt: skip
        shape = (cout, self.channels[x] // groups, kernel, kernel)
        fan_in = shape[1] * kernel**2
        weight = RNG.normal(0, (2 / fan_in) ** 0.5, shape).astype(np.float32)
        inputs = [x, self._weight(weight)]
        if bias:
            inputs.append(self._weight(RNG.normal(0.5, 1, cout).astype(np.float32)))
        y = self._node(
            "Conv", inputs, cout, strides=[stride] * 2, dilations=[dilation] * 2, group=groups,
            pads=[dilation * (kernel // 2) if pad is None else pad] * 4,
        )  # fmt: skip
        return self.act(y, act)

    def depthwise(self, x: str, kernel: int = 3, **options) -> str:
        channels = self.channels[x]
        return self.conv(x, channels, kernel, groups=channels, **options)

    def act(self, x: str, act: str) -> str:
        if act == "none":
            return x
        if act == "relu":
            return self._node("Relu", [x], self.channels[x])
        if act == "hswish":
            return self._node("HardSwish", [x], self.channels[x])
        if act == "sigmoid":
            return self.sigmoid(x)
        bounds = [self._weight(np.array(value, np.float32)) for value in (0, 6)]
        return self._node("Clip", [x, *bounds], self.channels[x])

    def add(self, a: str, b: str) -> str:
        return self._node("Add", [a, b], self.channels[a])

    def multiply(self, a: str, b: str) -> str:
        return self._node("Mul", [a, b], self.channels[a])

    def sigmoid(self, x: str) -> str:
        return self._node("Sigmoid", [x], self.channels[x])

    def average(self, x: str) -> str:
        return self._node("GlobalAveragePool", [x], self.channels[x])

    def resize(self, x: str, height: int, width: int, mode: str = "half_pixel") -> str:
        sizes = self._weight(np.array([1, self.channels[x], height, width], np.int64))
        return self._node(
            "Resize", [x, "", "", sizes], self.channels[x], mode="linear",
            coordinate_transformation_mode=mode,
        )  # fmt: skip

    def argmax(self, x: str) -> str:
        index = self._node("ArgMax", [x], 1, axis=1, keepdims=0)
        return self._node("Cast", [index], 1, to=TensorProto.UINT8)

    def model(self, *outputs: str) -> onnx.ModelProto:
        tensors = [numpy_helper.from_array(array, name) for name, array in self.weights.items()]
        # Shape inference fills in what the outputs are.
        infos = [onnx.ValueInfoProto(name=name) for name in outputs]
        inputs = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in self.inputs.items()
        ]
        graph = helper.make_graph(self.nodes, "net", inputs, infos, tensors)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
        return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def cpu_kernels(target: str = TARGETS[0]) -> CpuKernels:
    kernels = make_kernels(resolve_target(target), 2, {})
    assert kernels is not None
    return kernels


def found_in(model: onnx.ModelProto, kernels: Kernels) -> list[Found]:
    """What is placed, in the graph's order."""
    graph = Graph(import_graph(model)["main"])
    found = find_operations(graph, kernels)
    return [found[var] for var in graph.vars if var in found]


def placed(model: onnx.ModelProto, kernels: Kernels | None = None) -> list[Operation]:
    """The operations that are placed, in the graph's order; on a CPU unless others are given."""
    return [found.operation for found in found_in(model, kernels or cpu_kernels())]


def placed_on_a_gpu(model: onnx.ModelProto) -> list[Operation]:
    return placed(model, GpuKernels())


def kernels_of(model: onnx.ModelProto, target: str) -> list[str]:
    """Names of our kernels that ``main`` calls, in order, after the passes that place them."""
    return [name for name in operations_of(model, target) if not name.startswith("relax.")]


def operations_of(model: onnx.ModelProto, target: str) -> list[str]:
    """Our kernels and TVM's operators in ``main``, in order."""
    module = import_graph(model)
    passes = network_passes(make_kernels(resolve_target(target), 2, {}))
    module = run_passes(module, passes_before("SplitOutputs", passes))
    graph = Graph(module["main"])
    names = []
    for var in graph.vars:
        value = graph.definition(var)
        kernel = called_kernel(module, value)
        if kernel:
            names.append(kernel)
        elif hasattr(value, "op"):
            names.append(str(value.op.name))
    return names


def max_error(model: onnx.ModelProto, target: str, x: np.ndarray | None = None) -> float:
    """The largest difference to onnxruntime over all outputs; skips where it cannot run."""
    resolved = resolve_target(target)
    require_features(resolved.features)
    if x is None:
        x = noise(model)
    expected = reference(model, x)
    machine = compile_graph(Job(model, resolved, make_kernels(resolved, 2, {}))).load()
    # A second output has an entry of its own (SplitOutputs).
    entries = ["main", "logits"][: len(expected)]
    found = [machine.run(entry, x[0])[None] for entry in entries]
    return max(
        float(np.abs(a.astype(np.float64) - b).max()) for a, b in zip(found, expected, strict=True)
    )


def gpu_error(model: onnx.ModelProto) -> float:
    """The same of a graph of one output on a GPU, emulated."""
    x = noise(model)
    (expected,) = reference(model, x)
    lowered = compile_source(Job(model, resolve_target("cuda", "sm_61"))).lowered
    network = EmulatedNetwork(lowered.source, lowered.plan, lowered.constants)
    got = network.run(x).view(expected.dtype).reshape(expected.shape)
    return float(np.abs(got.astype(np.float64) - expected).max())


def noise(model: onnx.ModelProto) -> np.ndarray:
    """For the graph's input."""
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    return RNG.normal(0, 2, shape).astype(np.float32)


def reference(model: onnx.ModelProto, x: np.ndarray) -> list[np.ndarray]:
    """onnxruntime's outputs."""
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})
