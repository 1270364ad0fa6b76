"""The door: a user's file, opened, looked at and kept as it is, to be run in onnxruntime."""

import stat
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto, helper

from deploy.reading.as_float32 import read_as_float32
from deploy.reading.axes import fix_axes
from deploy.reading.evaluate import session_options
from deploy.reading.external import external_files, load_external
from deploy.reading.functions import check_functions
from deploy.reading.tensors import to_array
from deploy.reading.text import one_line, size_text
from deploy.resolution import Resolution
from lut.errors import UserError

OLDEST_OPSET = 7
MOST_NODES = 100_000
_LONGEST_NAME = 10_000  # letters; errors copy names, again and again
_LARGEST_PROTOBUF = (1 << 31) - 1
_APART = 1024  # bytes of a weight that a skeleton does not carry
_OTHER_FILES = {
    b"PK": "a zip file, as PyTorch's checkpoints are: export the network with torch.onnx.export",
    b"\x80": "a pickle, as PyTorch's checkpoints are: export the network with torch.onnx.export",
    b"version https://git-lfs": "a pointer of Git LFS: fetch the file itself with git lfs pull",
    b"\x89HDF": "an HDF5 file, as Keras' are: convert it with tf2onnx",
    b"<": "a web page or XML: download the file itself",
}


@dataclass(frozen=True)
class UserFile:
    """A user's ONNX file: `model` is what it says, weights loaded, its inputs' sizes fixed."""

    path: Path
    model: onnx.ModelProto

    def session(self, options: ort.SessionOptions | None = None) -> ort.InferenceSession:
        """The file in onnxruntime, on the CPU, untouched; above the 2 GB of a protobuf its weights
        are handed over beside it.

        Raises UserError where onnxruntime refuses it.
        """
        options, model = options or session_options(), self.model
        weights: dict[str, ort.OrtValue] = {}
        if sum(len(t.raw_data) for t in model.graph.initializer) >= _LARGEST_PROTOBUF // 2:
            model, weights = _without_weights(model)
            options.add_external_initializers(list(weights), list(weights.values()))
        try:
            return ort.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime has many classes of errors, all of them for this
            raise UserError(
                f"onnxruntime cannot run this file ({one_line(error, 300)}); export the network "
                "anew, in float32"
            ) from error


def open_file(path: Path, resolution: Resolution | None) -> UserFile:
    """Load a file with its weights, wherever they lie, and fix the sizes of its inputs.

    Raises UserError where it is missing, is no ONNX, is damaged or made by a newer ONNX, where its
    weights' files are missing or lie elsewhere than beside it, and as `fix_axes`.
    """
    return complete(path, parse(path), resolution)


def complete(path: Path, model: onnx.ModelProto, resolution: Resolution | None) -> UserFile:
    """Load the weights that lie in other files, and fix the sizes of the inputs, in place.

    What onnxruntime has no convolutions for is made float32 (`read_as_float32`).
    """
    load_external(model, path)
    fix_axes(model, resolution)
    read_as_float32(model)
    return UserFile(path, model)


def parse(path: Path) -> onnx.ModelProto:
    """What a file says, without the weights that lie in others; raises UserError."""
    model = onnx.ModelProto()
    try:
        model.ParseFromString(_read(path))
    except (DecodeError, RecursionError) as error:
        raise UserError(
            "it is no ONNX file, or a truncated one; export or download it anew"
        ) from error
    graph = model.graph
    if not graph.node and not graph.output:
        raise UserError("it is no ONNX file: it has no graph")
    if model.ir_version > onnx.IR_VERSION:
        raise UserError(
            f"its IR version {model.ir_version} is newer than this ONNX knows ({onnx.IR_VERSION}); "
            "export it with an older one, or update the package onnx"
        )
    if len(graph.node) > MOST_NODES:
        raise UserError(f"it has {len(graph.node)} nodes; at most {MOST_NODES} are read")
    for node in graph.node:
        for name in (node.op_type, node.name, node.domain, *node.input, *node.output):
            if len(name) > _LONGEST_NAME:
                raise UserError(
                    f"it has a name of {len(name)} letters; it is damaged, or made to take memory: "
                    "export the network anew"
                )
    if graph.sparse_initializer:
        raise UserError("it has sparse weights; export the network with dense ones")
    opset_of(model)
    return model


def opset_of(model: onnx.ModelProto) -> int:
    """The version of ONNX's operators that a file uses; raises UserError for one not read here."""
    found = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    newest = onnx.defs.onnx_opset_version()
    if len(found) != 1:
        raise UserError("it does not say which opset of ONNX it uses; export it anew")
    if not OLDEST_OPSET <= found[0] <= newest:
        raise UserError(
            f"its opset {found[0]} is not read here; export it with one from {OLDEST_OPSET} to "
            f"{newest}, such as 17"
        )
    return int(found[0])


def check(model: onnx.ModelProto) -> None:
    """ONNX's own checks of a file, without its large weights. Raises UserError."""
    check_functions(model)
    small = skeleton(model)
    for value in small.graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.shape.SetInParent()  # one without is no matter
    try:
        onnx.checker.check_model(small)
    except Exception as error:  # the checker and protobuf raise their own
        raise UserError(f"it is no valid ONNX ({one_line(error)}); export it anew") from error


def skeleton(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose large weights are inputs: what works on the graph copies no weights."""
    # Before version 4 every weight had to be among the inputs; onnxruntime asks for it of none.
    small = onnx.ModelProto(ir_version=max(model.ir_version, 4))
    small.opset_import.extend(model.opset_import)
    small.functions.extend(model.functions)
    graph = small.graph
    graph.name = model.graph.name or "network"
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    listed = {value.name for value in graph.input}
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) <= _APART:
            graph.initializer.append(tensor)
        elif tensor.name not in listed:
            kind = helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            graph.input.append(kind)
    return small


def _without_weights(
    model: onnx.ModelProto,
) -> tuple[onnx.ModelProto, dict[str, ort.OrtValue]]:
    small = skeleton(model)
    small.graph.ClearField("input")
    small.graph.input.extend(model.graph.input)
    weights = {}
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) > _APART:
            array = np.ascontiguousarray(to_array(tensor, f"the weight '{tensor.name}'"))
            weights[tensor.name] = ort.OrtValue.ortvalue_from_numpy_with_onnx_type(
                array, tensor.data_type
            )
            apart = small.graph.initializer.add()
            apart.name, apart.data_type = tensor.name, tensor.data_type
            apart.dims.extend(tensor.dims)
            apart.data_location = TensorProto.EXTERNAL
            apart.external_data.add(key="location", value="in-memory")
    return small, weights


def size_on_disk(path: Path, model: onnx.ModelProto | None = None) -> int:
    """Bytes that a file, and the files of its weights, take; holes do not count."""
    paths = [path, *(external_files(model, path) if model is not None else ())]
    total = 0
    for each in paths:
        status = each.stat()
        total += min(status.st_size, getattr(status, "st_blocks", status.st_size) * 512)
    return total


def _read(path: Path) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UserError("it is no file")
        if status.st_size == 0:
            raise UserError("it is empty")
        with path.open("rb") as file:
            head = file.read(32)
            _check_head(head)
            if status.st_size > _LARGEST_PROTOBUF:
                raise UserError(
                    f"it has {size_text(status.st_size)}, an ONNX file at most 2 GB; save it with "
                    "its weights beside it (onnx.save with save_as_external_data=True)"
                )
            return head + file.read()
    except FileNotFoundError:
        raise UserError("no such file") from None
    except OSError as error:
        raise UserError(f"it cannot be read ({error.strerror})") from error


def _check_head(head: bytes) -> None:
    for start, what in _OTHER_FILES.items():
        if head.startswith(start):
            raise UserError(f"it is no ONNX file but {what}")
    if head[0] == 0:
        raise UserError("it is no ONNX file, or a damaged one; export or download it anew")
