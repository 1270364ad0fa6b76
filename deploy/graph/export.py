"""From a PyTorch network or a user's ONNX file to the one graph that every runtime runs.

torch -> batch norm folded -> ONNX -> image end and output end -> metadata. What was trained with
quantisation (`hmseg.train.quantise`) becomes QuantizeLinear and DequantizeLinear, with its scales.
"""

import contextlib
import io
import logging
import tempfile
import warnings
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import onnx
import torch
from torch import nn

from deploy.graph.decision import decide, read_classes
from deploy.graph.ends import GraphEnds, attach_ends, inspect_ends, tail_of
from deploy.graph.integers import store_integers
from deploy.metadata import (
    UNKNOWN_LICENSE,
    InputKind,
    Metadata,
    OutputKind,
    Values,
    check_normalisation,
)
from deploy.reading import ReadModel, read_model, read_own
from deploy.reading.file import UserFile
from deploy.reading.text import one_line
from deploy.resolution import Resolution, parse_resolution
from hmseg.data.classes import ClassSet, classes_for
from hmseg.data.normalise import MEAN, STD
from hmseg.fold import fold_pairs
from hmseg.train.quantise import fixed, is_quantised
from lut.errors import UserError
from lut.files import atomic_path

OPSET = 20
# Of metadata in every file that we write; a user's file may have some of the same names.
_FIELDS = {
    "model", "classes", "names", "palette", "resolution", "output", "mean", "std", "license",
    "version",
}  # fmt: skip


def fold_batch_norm(model: nn.Module) -> nn.Module:
    """`fold_pairs`; raises UserError for a batch norm that does not directly follow a
    convolution."""
    folded = fold_pairs(model)
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
    metadata = _metadata_of(name, classes or classes_for(num_classes), resolution)
    metadata = replace(metadata, output=output, input=input_kind)
    graph = onnx.shape_inference.infer_shapes(graph, strict_mode=True, data_prop=True)
    return _finish(graph, metadata, inspect_ends(graph))[0]


def export_module(module: nn.Module, resolution: Resolution, path: Path) -> None:
    """Write a user's module as an ONNX file, as the user would: float (1, 3, H, W) to whatever it
    gives, in eval mode. Raises UserError where torch cannot export it."""
    try:
        graph = _export_float_graph(fold_pairs(module).cpu(), resolution)
    except Exception as error:  # of the module's own code, or of any part of the exporter
        raise UserError(
            f"torch cannot export this {type(module).__name__} at {resolution} "
            f"({one_line(error, 300)}); it has to take a float32 image (1, 3, H, W)"
        ) from error
    save_onnx(graph, path)


def _metadata_of(name: str, classes: ClassSet, resolution: Resolution) -> Metadata:
    return Metadata(
        model=name, classes=classes, resolution=resolution, output="labels", mean=MEAN, std=STD,
        license="MIT", version=version("hmseg"), input="tensor",
    )  # fmt: skip


class Imported(NamedTuple):
    """The deployable graph of a user's file, and how it came about.

    `file` is that file as it is, `ends` what was found at its ends. `scores` is what in the
    deployable graph the class scores (1, K, h, w) are called that they were traced back to, `tail`
    are the nodes between these and the file's output (`deploy.graph.ends.own`). `note` is what the
    user should know, if anything.
    """

    graph: onnx.ModelProto
    file: UserFile
    ends: GraphEnds
    scores: str
    tail: onnx.ModelProto
    note: str


def import_peer(
    model: nn.Module, name: str, resolution: Resolution, num_classes: int, *,
    input_kind: InputKind = "image", output: OutputKind = "labels",
    classes: ClassSet | None = None,
) -> Imported:  # fmt: skip
    """Export a network of others, which gives scores at its own stride, and read the file, of a
    moment, as a user's is. Batch norms that follow no convolution are left to the reading. Raises
    whatever torch does for a size that the network does not take, and OSError where there is no
    room for the file."""
    graph = _export_float_graph(fold_pairs(model), resolution)
    _strip_debug(graph)
    metadata = _metadata_of(name, classes or classes_for(num_classes), resolution)
    onnx.helper.set_model_props(graph, metadata.to_strings())
    with tempfile.TemporaryDirectory(prefix="hmseg-") as folder:
        path = Path(folder) / f"{name}.onnx"
        save_onnx(graph, path)
        return make_deployable(read_own(path), input_kind=input_kind, output=output)


def import_onnx(path: Path, **options: Any) -> onnx.ModelProto:  # noqa: ANN401 - `import_file`'s
    """The deployable graph of `import_file`."""
    return import_file(path, **options).graph


def import_file(
    path: Path,
    *,
    resolution: Resolution | None = None,
    **options: Any,  # noqa: ANN401
) -> Imported:
    """Read a user's ONNX file and make it deployable: `read_model` says what `resolution` is for,
    `make_deployable` has the other options. Raises UserError as these do."""
    return make_deployable(read_model(path, resolution), **options)


def make_deployable(
    read: ReadModel,
    *,
    output_name: str | None = None,
    input_kind: InputKind = "image",
    output: OutputKind | None = None,
    mean: Values | None = None,
    std: Values | None = None,
    threshold: float | None = None,
) -> Imported:
    """Make a user's file deployable: its normal form gets our ends, in place
    (`deploy.graph.ends.inspect_ends` says what is accepted).

    `output_name` chooses among its outputs. Without an `output` it is labels, or masks where the
    file says that its classes do not exclude each other. A file that already carries our metadata
    keeps its classes. `mean` and `std`, of the image scaled to 0..1, are used where the graph takes
    a float tensor (`default_normalisation`). With the input kind ``tensor`` that float input stays
    the graph's input. `threshold` is what the file's own output is compared with, where it is one
    class's or masks'. Raises UserError for another layout, and for options that contradict the
    file.
    """
    graph, path = read.graph, read.file.path
    ends = inspect_ends(graph, output_name)
    parse_resolution(str(ends.resolution))
    strings = {prop.key: prop.value for prop in read.file.model.metadata_props}
    known = Metadata.from_strings(strings) if set(strings) >= _FIELDS else None
    mean, std = _normalisation(path, ends, input_kind, known, mean, std)
    decision = decide(ends, output, threshold, known)
    metadata = Metadata(
        model=known.model if known else path.stem,
        classes=known.classes if known else read_classes(strings, ends),
        resolution=ends.resolution,
        output=decision.output,
        mean=mean,
        std=std,
        license=known.license if known else UNKNOWN_LICENSE,
        version=version("hmseg"),
        input=input_kind,
        channels=ends.input.channels,
        scores=1 if ends.is_binary else None,
        threshold=decision.threshold,
    )
    if len(metadata.classes) != ends.num_classes:
        raise UserError(
            f"{path}: the metadata names {len(metadata.classes)} classes, the graph gives "
            f"{ends.num_classes}"
        )
    tail = tail_of(graph, ends)
    graph, scores = _finish(graph, metadata, ends)
    return Imported(graph, read.file, ends, scores, tail, decision.note)


def default_normalisation(channels: int) -> tuple[Values, Values]:
    """Mean and standard deviation where none are given: ImageNet's for RGB; grey and RGBA images
    are scaled to 0..1 alone."""
    return (MEAN, STD) if channels == len(MEAN) else ((0.0,) * channels, (1.0,) * channels)


def _normalisation(
    path: Path, ends: GraphEnds, input_kind: InputKind, known: Metadata | None,
    mean: Values | None, std: Values | None,
) -> tuple[Values | None, Values | None]:  # fmt: skip
    if ends.input.is_uint8:
        if mean or std:
            raise UserError(
                f"{path} takes a uint8 image: its mean and std are inside; leave them out"
            )
        if input_kind == "tensor":
            raise UserError(f"{path} takes a uint8 image: it has no float tensor to start from")
        return (known.mean, known.std) if known else (None, None)
    channels = ends.input.channels
    usual = default_normalisation(channels)
    mean = mean or (known.mean if known else None) or usual[0]
    std = std or (known.std if known else None) or usual[1]
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != channels:
            raise UserError(
                f"--{name} has {len(values)} numbers, the image of {path} has {channels} channels"
            )
    check_normalisation(mean, std)
    return mean, std


def save_onnx(model: onnx.ModelProto, path: Path) -> None:
    """Write the file whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(model.SerializeToString())


def read_metadata(model: onnx.ModelProto) -> Metadata:
    """The metadata of a graph that this module made."""
    return Metadata.from_strings({prop.key: prop.value for prop in model.metadata_props})


def _export_float_graph(model: nn.Module, resolution: Resolution) -> onnx.ModelProto:
    example = torch.zeros(1, 3, *resolution)
    if is_quantised(model):
        model = fixed(model)
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
    store_integers(graph)
    return graph


def _finish(
    model: onnx.ModelProto, metadata: Metadata, ends: GraphEnds
) -> tuple[onnx.ModelProto, str]:
    """The graph with both ends, and what `attach_ends` says."""
    _strip_debug(model)
    scores = attach_ends(model, ends, metadata)
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    model.producer_name, model.producer_version = "hmseg", metadata.version
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, metadata.to_strings())
    onnx.checker.check_model(model, full_check=True)
    return model, scores


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
