"""What ``--model`` names: a network of the zoo, a peer or an ONNX file of the user's own."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
import torch
from torch import nn

from deploy.graph.export import (
    Imported,
    export_network,
    export_peer,
    make_deployable,
    read_metadata,
)
from deploy.metadata import InputKind, Metadata, OutputKind, Values
from deploy.reading import ReadModel, read_model, read_own
from deploy.resolution import DEFAULT_RESOLUTION, Resolution
from hmseg import zoo
from hmseg.families.blocks import AtImageSize
from hmseg.families.calibrate import calibrate_batch_norm
from hmseg.mrms import MRMS, MRMSConfig
from hmseg.pretrained import list_released
from lut.errors import UserError

SEED = 0


@dataclass(frozen=True)
class Source:
    """A deployable graph, the network behind it where it has a name here, from normalised image to
    scores of its size, and what its weights are.

    `imported` says how a user's file became that graph.
    """

    graph: onnx.ModelProto
    network: nn.Module | None
    weights: str
    imported: Imported | None = None

    @property
    def metadata(self) -> Metadata:
        """What the graph says about itself."""
        return read_metadata(self.graph)


def open_source(
    model: str,
    *,
    resolution: Resolution | None = None,
    input_kind: InputKind = "image",
    output: OutputKind | None = None,
    num_classes: int | None = None,
    mean: Values | None = None,
    std: Values | None = None,
    output_name: str | None = None,
    threshold: float | None = None,
    read: ReadModel | None = None,
) -> Source:
    """Export a network of the zoo or a peer, or import an ONNX file (`import_file`) with both ends,
    which may have been `read` before.

    Without an `output` it is what the classes ask for: labels where they exclude each other, as
    those of the zoo do. A zoo network gets its released weights, with their classes, if it has any
    and `num_classes` is not given; else the same random weights every time, as every peer. Raises
    UserError for an unknown name, and for options that contradict the file.
    """
    if model not in zoo.list_models() and _names_a_file(model):
        if num_classes is not None:
            raise UserError("--classes goes with a zoo model; an ONNX file has its own classes")
        found = make_deployable(
            read or read_model(Path(model), resolution), output_name=output_name,
            input_kind=input_kind, output=output, mean=mean, std=std, threshold=threshold,
        )  # fmt: skip
        return Source(found.graph, None, "those in the file", found)
    if mean or std:
        raise UserError("--mean and --std go with an ONNX file; zoo models use ImageNet's")
    if output_name is not None or threshold is not None:
        raise UserError("--output-name and --threshold go with an ONNX file")
    if output == "masks":
        raise UserError(
            "--output masks goes with an ONNX file; a zoo model's classes exclude each other"
        )
    torch.manual_seed(SEED)
    resolution, output = resolution or DEFAULT_RESOLUTION, output or "labels"
    untrained = f"random (seed {SEED}): the network is not trained"
    if zoo.is_peer(model):
        peer = zoo.create_model(model, num_classes=num_classes)
        # As they come, a deep network's scores are the same at every pixel.
        calibrate_batch_norm(peer, SEED)
        classes = num_classes or MRMSConfig.num_classes
        with TemporaryDirectory() as folder:
            path = export_peer(peer, model, resolution, classes, Path(folder))
            graph = make_deployable(read_own(path), input_kind=input_kind, output=output).graph
        return Source(graph, AtImageSize(peer), untrained)
    released = [data for name, data in list_released() if name == model]
    trained_on = released[0] if released and num_classes is None else None
    network = zoo.create_model(model, num_classes=num_classes, pretrained=trained_on).eval()
    assert isinstance(network, MRMS)
    graph = export_network(
        network, model, resolution, input_kind=input_kind, output=output,
        num_classes=network.config.num_classes,
    )  # fmt: skip
    return Source(graph, network, f"trained on {trained_on}" if trained_on else untrained)


def _names_a_file(model: str) -> bool:
    try:
        return model.endswith(".onnx") or Path(model).is_file()
    except OSError:  # a name longer than the file system takes
        return False
