"""Small ONNX graphs such as users bring, and small networks of our own."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from deploy.graph.export import import_onnx
from deploy.resolution import Resolution
from hmseg.mrms import MRMS, MRMSConfig
from hmseg.testing import random_network

Node = onnx.NodeProto
SIZE = Resolution(64, 64)
CLASSES = 5


def model_of(
    nodes: Sequence[Node],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    weights: dict[str, np.ndarray],
    opset: int = 18,
) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(list(nodes), "user", list(inputs), list(outputs), tensors)
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("custom.domain", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def segmenter(
    *,
    stride: int = 8,
    size: Resolution = SIZE,
    classes: int = CLASSES,
    layout: str = "float",
    end: str = "scores",
    names: Callable[[str], str] = lambda name: name,
    input_dims: Sequence[int | str] | None = None,
    extra: Sequence[Node] = (),
    opset: int = 18,
    seed: int = 0,
) -> onnx.ModelProto:
    """Conv(3->8, stride) - Clip - Conv 1x1 to the classes: class scores at 1/stride.

    `layout`: float (NCHW) or uint8 (NHWC). `end`: scores, argmax, argmax-cast (uint8) or
    argmax-squeeze (keepdims, then Cast and Squeeze). `names` renames every tensor; `extra` nodes
    take ``features`` and give ``activated``, in the place of Clip.
    """
    rng = np.random.default_rng(seed)
    scale = 1.0 if layout == "float" else 1 / 255
    weights = {
        "w1": rng.normal(0, 0.3 * scale, (8, 3, 3, 3)).astype(np.float32),
        "b1": rng.normal(1, 0.5, 8).astype(np.float32),
        "low": np.array(0, np.float32),
        "high": np.array(6, np.float32),
        "w2": rng.normal(0, 0.5, (classes, 8, 1, 1)).astype(np.float32),
        "b2": rng.normal(0, 0.1, classes).astype(np.float32),
    }
    nodes: list[Node] = []
    height, width = size
    dims: Sequence[int | str] = [1, 3, height, width]
    first, element = "input", TensorProto.FLOAT
    if layout == "uint8":
        dims, element, first = [1, height, width, 3], TensorProto.UINT8, "float"
        nodes += [
            helper.make_node("Transpose", ["input"], ["chw"], perm=[0, 3, 1, 2], name="to_chw"),
            helper.make_node("Cast", ["chw"], ["float"], to=TensorProto.FLOAT, name="to_float"),
        ]
    nodes.append(
        helper.make_node(
            "Conv", [first, "w1", "b1"], ["features"], name="conv1",
            strides=[stride, stride], pads=[1, 1, 1, 1],
        )
    )  # fmt: skip
    nodes += extra or [
        helper.make_node("Clip", ["features", "low", "high"], ["activated"], name="clip")
    ]
    nodes.append(helper.make_node("Conv", ["activated", "w2", "b2"], ["scores"], name="conv2"))
    small = [1, classes, -(-height // stride), -(-width // stride)]
    output, out_element, out_dims = "scores", TensorProto.FLOAT, small
    if end != "scores":
        keep = end == "argmax-squeeze"
        nodes.append(
            helper.make_node("ArgMax", ["scores"], ["index"], axis=1, keepdims=int(keep), name="am")
        )
        output, out_element, out_dims = "index", TensorProto.INT64, [1, *small[2:]]
    if end in ("argmax-cast", "argmax-squeeze"):
        nodes.append(
            helper.make_node("Cast", ["index"], ["cast"], to=TensorProto.UINT8, name="cast")
        )
        output, out_element = "cast", TensorProto.UINT8
    if end == "argmax-squeeze":
        weights["axes"] = np.array([1], np.int64)
        nodes.append(helper.make_node("Squeeze", ["cast", "axes"], ["squeezed"], name="squeeze"))
        output = "squeezed"
    for node in nodes:
        for tensors in (node.input, node.output):
            tensors[:] = [names(name) for name in tensors]
    return model_of(
        nodes,
        [helper.make_tensor_value_info(names("input"), element, input_dims or dims)],
        [helper.make_tensor_value_info(names(output), out_element, out_dims)],
        {names(name): array for name, array in weights.items()},
        opset,
    )


def write(model: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def deployable(
    model: onnx.ModelProto, folder: Path, output: str = "labels", mean=None, std=None
) -> onnx.ModelProto:
    """The model as `hmseg-deploy` takes it in from a file."""
    return import_onnx(write(model, folder / "user.onnx"), output=output, mean=mean, std=std)


def network(config: MRMSConfig | None = None, seed: int = 0) -> MRMS:
    """A half-width network of ours, as training would leave it."""
    return random_network(config or MRMSConfig(width=0.5), seed)


def photo(size: Resolution = SIZE, seed: int = 0) -> np.ndarray:
    """uint8 (H, W, 3) noise."""
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
