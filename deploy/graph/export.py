"""From a PyTorch network or a user's ONNX file to the one graph that every runtime runs.

torch -> batch norm folded -> ONNX -> image end and output end -> metadata.
"""

import contextlib
import copy
import io
import logging
import warnings
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import onnx
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from deploy.graph.ends import (
    IMAGE,
    TENSOR,
    attach_image_end,
    attach_output_end,
    free_names,
    inspect_ends,
    name_input,
)
from deploy.metadata import InputKind, Metadata, OutputKind, Triple
from deploy.resolution import Resolution
from hmseg.data.classes import ClassSet, classes_for
from hmseg.data.normalise import MEAN, STD
from lut.errors import UserError
from lut.files import atomic_path, read_file

OPSET = 20
_OLDEST_OPSET = 13  # of what the ends are written in; older files are converted


def fold_batch_norm(model: nn.Module) -> nn.Module:
    """A copy in eval mode with every (convolution, batch norm) pair made one convolution.

    Raises UserError for a batch norm that does not directly follow a convolution.
    """
    folded = copy.deepcopy(model).eval()
    for sequence in [m for m in folded.modules() if isinstance(m, nn.Sequential)]:
        children = list(sequence.named_children())
        for (_, conv), (name, norm) in pairwise(children):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                fused = fuse_conv_bn_eval(conv, norm)
                conv.weight, conv.bias = fused.weight, fused.bias
                sequence.register_module(name, nn.Identity())
    left = [name for name, m in folded.named_modules() if isinstance(m, nn.BatchNorm2d)]
    if left:
        raise UserError(
            f"batch norm {left[0]!r} does not follow a convolution: it cannot be folded"
        )
    return folded


def export_network(
    model: nn.Module,
    name: str,
    resolution: Resolution,
    *,
    input_kind: InputKind = "image",
    output: OutputKind = "labels",
    num_classes: int,
    classes: ClassSet | None = None,
) -> onnx.ModelProto:
    """Export a network of float (1, 3, H, W) to logits (1, K, H, W) as a deployable graph.

    The image is normalised with ImageNet's mean and standard deviation, as in training: by the
    graph, or, where it takes a ``tensor``, by whoever calls it.
    """
    graph = _export_float_graph(fold_batch_norm(model), resolution)
    metadata = Metadata(
        model=name,
        classes=classes or classes_for(num_classes),
        resolution=resolution,
        output=output,
        mean=MEAN,
        std=STD,
        license="MIT",
        version=version("hmseg"),
        input=input_kind,
    )
    return _finish(graph, metadata)


def import_onnx(
    path: Path,
    *,
    input_kind: InputKind = "image",
    output: OutputKind = "labels",
    mean: Triple | None,
    std: Triple | None,
) -> onnx.ModelProto:
    """Make a user's ONNX file deployable (`deploy.graph.ends.inspect_ends` says what is accepted).

    A file that already carries our metadata keeps its classes. `mean` and `std`, of the RGB image
    scaled to 0..1, are used where the graph takes a float tensor; ImageNet's by default. With the
    input kind ``tensor`` that float input stays the graph's input. Raises UserError for a file that
    is missing, is no ONNX, has dynamic shapes or another layout.
    """
    graph = read_onnx(path)
    ends = inspect_ends(graph)
    if ends.takes_image and (mean or std):
        raise UserError(f"{path} takes a uint8 image: its mean and std are inside; leave them out")
    if ends.takes_image and input_kind == "tensor":
        raise UserError(f"{path} takes a uint8 image: it has no float tensor to start from")
    strings = {prop.key: prop.value for prop in graph.metadata_props}
    known = Metadata.from_strings(strings) if {"names", "palette"} <= set(strings) else None
    classes = known.classes if known else classes_for(ends.num_classes)
    if len(classes) != ends.num_classes:
        raise UserError(
            f"{path}: the metadata names {len(classes)} classes, the graph gives {ends.num_classes}"
        )
    if known:
        mean, std = mean or known.mean, std or known.std
    if not ends.takes_image:
        mean, std = mean or MEAN, std or STD
    metadata = Metadata(
        model=known.model if known else path.stem,
        classes=classes,
        resolution=ends.resolution,
        output=output,
        mean=mean,
        std=std,
        license=known.license if known else "unknown",
        version=version("hmseg"),
        input=input_kind,
    )
    return _finish(graph, metadata)


def read_onnx(path: Path) -> onnx.ModelProto:
    """Load, check and shape-infer an ONNX file; raises UserError in one line."""
    content = read_file(path)
    try:
        model = onnx.load_model_from_string(content)
        onnx.external_data_helper.load_external_data_for_model(model, str(path.parent))
        onnx.checker.check_model(model)
        opsets = {entry.domain: entry.version for entry in model.opset_import}
        if opsets.get("", _OLDEST_OPSET) < _OLDEST_OPSET:
            model = onnx.version_converter.convert_version(model, _OLDEST_OPSET)
        return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except Exception as error:  # protobuf, the checker and the file system each raise their own
        line = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path}: not a valid ONNX file ({line})") from error


def save_onnx(model: onnx.ModelProto, path: Path) -> None:
    """Write the file whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(model.SerializeToString())


def read_metadata(model: onnx.ModelProto) -> Metadata:
    """The metadata of a graph that this module made."""
    return Metadata.from_strings({prop.key: prop.value for prop in model.metadata_props})


def _export_float_graph(model: nn.Module, resolution: Resolution) -> onnx.ModelProto:
    example = torch.zeros(1, 3, *resolution)
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it reports that torchvision's operators are not there
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                model, (example,), dynamo=True, input_names=["tensor"], output_names=["scores"],
                opset_version=OPSET, verbose=False,
            )  # fmt: skip
    finally:
        logger.setLevel(level)
    assert program is not None
    graph: onnx.ModelProto = program.model_proto
    return graph


def _finish(model: onnx.ModelProto, metadata: Metadata) -> onnx.ModelProto:
    _strip_debug(model)
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    ends = inspect_ends(model)
    free_names(model)
    if ends.takes_image:
        name_input(model, IMAGE)
    elif metadata.input == "tensor":
        name_input(model, TENSOR)
    else:
        assert metadata.mean
        assert metadata.std
        attach_image_end(model, ends.resolution, metadata.mean, metadata.std)
    attach_output_end(model, ends, metadata.output)
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    model.producer_name, model.producer_version = "hmseg", metadata.version
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, metadata.to_strings())
    onnx.checker.check_model(model, full_check=True)
    return model


def _strip_debug(model: onnx.ModelProto) -> None:
    """Drop the exporter's stack traces: they hold paths of the machine that exported."""
    del model.graph.metadata_props[:]
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]
