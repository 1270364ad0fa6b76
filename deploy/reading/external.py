"""Weights in files of their own, beside the model's."""

from collections.abc import Iterator
from math import prod
from pathlib import Path, PurePosixPath

import onnx
from onnx import TensorProto

from deploy.reading.graph import element_bytes
from deploy.reading.text import plain, size_text
from lut.errors import UserError

_HALF_BYTES = (TensorProto.INT4, TensorProto.UINT4)


def load_external(model: onnx.ModelProto, path: Path) -> None:
    """Load every weight that lies in another file into the model, in place.

    Raises UserError for a location outside the model's folder, a file that is missing or too short.
    """
    for tensor in tensors_of(model):
        if tensor.data_location == TensorProto.EXTERNAL:
            tensor.raw_data = _read(tensor, path)
            tensor.data_location = TensorProto.DEFAULT
            del tensor.external_data[:]


def external_files(model: onnx.ModelProto, path: Path) -> list[Path]:
    """The files that hold a model's weights; raises as `load_external`."""
    names = {
        _entries(tensor).get("location", "")
        for tensor in tensors_of(model)
        if tensor.data_location == TensorProto.EXTERNAL
    }
    return [_locate(name, path) for name in sorted(names)]


def tensors_of(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Every tensor of a file: weights, and those in attributes, also of inner graphs."""
    yield from _of_graph(model.graph)
    for function in model.functions:
        for node in function.node:
            yield from _of_node(node)


def _of_graph(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        yield from _of_node(node)


def _of_node(node: onnx.NodeProto) -> Iterator[TensorProto]:
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        if attribute.HasField("g"):
            yield from _of_graph(attribute.g)
        for graph in attribute.graphs:
            yield from _of_graph(graph)


def _read(tensor: TensorProto, path: Path) -> bytes:
    entries = _entries(tensor)
    title = f"the weight '{plain(tensor.name)}'"
    file = _locate(entries.get("location", ""), path)
    try:
        length = prod(tensor.dims) * element_bytes(tensor.data_type)
    except KeyError:
        raise UserError(f"{title} has an unknown type") from None
    if tensor.data_type in _HALF_BYTES:
        length = (length + 1) // 2
    try:
        offset = int(entries.get("offset") or 0)
        given = int(entries.get("length") or length)
    except ValueError:
        raise UserError(f"{title} does not say where its data lies; save the file anew") from None
    size = file.stat().st_size
    if offset < 0 or length < 0 or given != length or offset + length > size:
        raise UserError(
            f"{title} takes {size_text(length)} of {plain(file.name)}, which has "
            f"{size_text(size)}: it is truncated, or of another model"
        )
    with file.open("rb") as data:
        data.seek(offset)
        return data.read(length)


def _entries(tensor: TensorProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def _locate(location: str, path: Path) -> Path:
    """Beside the model, as it is named or, where that is a link, where the link leads."""
    parts = PurePosixPath(location).parts
    if (
        not parts
        or location.startswith("/")
        or ".." in parts
        or "\\" in location
        or "\0" in location
    ):
        raise UserError(
            f"its weights are said to lie in '{plain(location)}', outside its folder; save it with "
            "its weights beside it (onnx.save with save_as_external_data=True)"
        )
    try:
        folders = (path.parent, path.resolve().parent)
        found = next((f / location for f in folders if (f / location).is_file()), None)
    except OSError:
        found = None
    if found is None:
        raise UserError(f"the file of its weights, '{plain(location)}', is missing beside it")
    return found
