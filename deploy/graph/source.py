"""What ``--model`` names: a network of the zoo, a peer, a training's checkpoint or an ONNX file of
the user's own.

Light to import: a wrong name is refused without torch and onnx.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from deploy.metadata import InputKind, Metadata, OutputKind, Values
from deploy.resolution import DEFAULT_RESOLUTION, Resolution
from hmseg import zoo
from hmseg.data.classes import CLASS_SETS, ClassSet, classes_for, generic_classes
from hmseg.families import SIDES
from lut.errors import HmsegError, UserError
from lut.files import size_of

if TYPE_CHECKING:
    import onnx
    from torch import nn

    from deploy.graph.export import Imported
    from deploy.reading import ReadModel

SEED = 0
CHECKPOINT = ".safetensors"  # what a training run leaves
_UNTRAINED = f"random (seed {SEED}): the network is not trained"


class ReleasedWeights(NamedTuple):
    """Whose weights a network has: its name, the data that they were trained on, and the SHA-256 of
    their file."""

    model: str
    data: str
    sha256: str


@dataclass(frozen=True)
class Source:
    """A deployable graph, the network behind it where it has a name here, from normalised image to
    scores of its size, and what its weights are.

    `imported` says how a user's file became that graph. `quantised` is the same network in 8 bits,
    by scales that were found for it. `released` is where the weights are released ones, and no
    user's.
    """

    graph: "onnx.ModelProto"
    network: "nn.Module | None"
    weights: str
    imported: "Imported | None" = None
    quantised: "onnx.ModelProto | None" = None
    released: ReleasedWeights | None = None

    @property
    def compiled(self) -> "onnx.ModelProto":
        """The graph that a binary is made of, and held to."""
        return self.graph if self.quantised is None else self.quantised

    @property
    def metadata(self) -> Metadata:
        """What the graph says about itself."""
        from deploy.graph.export import read_metadata

        return read_metadata(self.graph)


def check_model(model: str) -> None:
    """Raise UserError where a text names neither a network nor a file."""
    if _names_a_file(model):
        if size_of(Path(model)) is None:
            raise UserError(f"{model}: no such file")
    elif not zoo.is_peer(model):
        zoo.network_config(model)


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
    read: "ReadModel | None" = None,
) -> Source:
    """Export a network of the zoo, a peer or a checkpoint, or import an ONNX file (`import_file`)
    with both ends, which may have been `read` before.

    Without an `output` it is what the classes ask for: labels where they exclude each other, as
    those of the zoo do. A zoo network gets its released weights, with their classes, if it has any
    and `num_classes` is not given; else the same random weights every time, as every peer. Raises
    UserError for an unknown name, and for options that contradict the file.
    """
    trained = _names_a_file(model) and kind_of(Path(model)) == CHECKPOINT
    if _names_a_file(model) and not trained:
        if num_classes is not None:
            raise UserError("--classes goes with a zoo model; an ONNX file has its own classes")
        from deploy.reading import read_model

        # Before torch takes its memory: the file may be hostile.
        read = read or read_model(Path(model), resolution)
        from deploy.graph.export import make_deployable

        found = make_deployable(
            read, output_name=output_name, input_kind=input_kind, output=output, mean=mean,
            std=std, threshold=threshold,
        )  # fmt: skip
        return Source(found.graph, None, "those in the file", found)
    if mean or std:
        raise UserError("--mean and --std go with an ONNX file; other models use ImageNet's")
    if output_name is not None or threshold is not None:
        raise UserError("--output-name and --threshold go with an ONNX file")
    if output == "masks":
        raise UserError(
            "--output masks goes with an ONNX file; another model's classes exclude each other"
        )
    resolution, output = resolution or DEFAULT_RESOLUTION, output or "labels"
    if trained:
        if num_classes is not None:
            raise UserError("--classes goes with a zoo model; a checkpoint has its own classes")
        return _export_trained(Path(model), resolution, input_kind, output)
    export = _export_peer if zoo.is_peer(model) else _export_own
    return export(model, resolution, input_kind, output, num_classes)


def _export_own(
    model: str, resolution: Resolution, input_kind: InputKind, output: OutputKind,
    num_classes: int | None,
) -> Source:  # fmt: skip
    import torch

    from deploy.graph.export import export_network
    from hmseg.mrms import MRMS
    from hmseg.pretrained import list_released, load_released

    torch.manual_seed(SEED)
    released = [data for name, data in list_released() if name == model]
    trained_on = released[0] if released and num_classes is None else None
    network = zoo.create_model(model, num_classes=num_classes, pretrained=trained_on).eval()
    assert isinstance(network, MRMS)
    graph = export_network(
        network, model, resolution, input_kind=input_kind, output=output,
        num_classes=network.config.num_classes,
    )  # fmt: skip
    if trained_on is None:
        return Source(graph, network, _UNTRAINED)
    weights = ReleasedWeights(model, trained_on, load_released(model, trained_on).card["sha256"])
    return Source(graph, network, f"trained on {trained_on}", released=weights)


def _export_peer(
    model: str, resolution: Resolution, input_kind: InputKind, output: OutputKind,
    num_classes: int | None,
) -> Source:  # fmt: skip
    import torch

    from hmseg.families.blocks import AtImageSize
    from hmseg.families.calibrate import calibrate_batch_norm
    from hmseg.mrms_config import MRMSConfig

    torch.manual_seed(SEED)
    peer = zoo.create_model(model, num_classes=num_classes)
    # As they come, a deep network's scores are the same at every pixel.
    calibrate_batch_norm(peer, SEED)
    classes = classes_for(num_classes or MRMSConfig.num_classes)
    found = _import_peer(peer, model, resolution, input_kind, output, classes)
    return Source(found.graph, AtImageSize(peer), _UNTRAINED)


def _export_trained(
    path: Path, resolution: Resolution, input_kind: InputKind, output: OutputKind
) -> Source:
    """Of a quantised network there is no network behind the graph: rounded to 8 bits, two runs are
    as far apart as their ties, not as float32's noise."""
    from deploy.graph.export import export_network
    from hmseg.families.blocks import AtImageSize
    from hmseg.train.checkpoint import Checkpoint
    from hmseg.train.trained import trained_network

    checkpoint = Checkpoint.load(path)
    config, names = checkpoint.config, checkpoint.classes
    network = trained_network(checkpoint, path).eval()
    known = CLASS_SETS.get(config.data)
    classes = known if known and known.names == names else ClassSet(
        config.data, names, generic_classes(len(names)).palette
    )  # fmt: skip
    about = f"{path.name}, step {checkpoint.step}" + f", {config.quantise}" * bool(config.quantise)
    if zoo.is_peer(config.model):
        graph = _import_peer(network, config.model, resolution, input_kind, output, classes).graph
        network = AtImageSize(network)
    else:
        graph = export_network(
            network, config.model, resolution, input_kind=input_kind, output=output,
            num_classes=len(names), classes=classes,
        )  # fmt: skip
    return Source(graph, None if config.quantise else network, about)


def _import_peer(
    peer: "nn.Module", model: str, resolution: Resolution, input_kind: InputKind,
    output: OutputKind, classes: ClassSet,
) -> "Imported":  # fmt: skip
    """`deploy.graph.export.import_peer`; raises UserError for a size that it does not take."""
    from deploy.graph.export import import_peer
    from deploy.reading.text import one_line

    try:
        return import_peer(
            peer, model, resolution, len(classes), input_kind=input_kind, output=output,
            classes=classes,
        )  # fmt: skip
    except (HmsegError, MemoryError, OSError):
        raise
    except Exception as error:  # whatever torch and its exporter raise where maps do not fit
        raise UserError(
            f"{model} does not take {resolution} ({one_line(error, 200)}); every network takes "
            f"sides that {SIDES} divides"
        ) from error


def _names_a_file(model: str) -> bool:
    """A name of the zoo is none, whatever lies in the folder."""
    try:
        named = model.endswith((".onnx", CHECKPOINT))
        return model not in zoo.list_models() and (named or Path(model).is_file())
    except (OSError, ValueError):  # a name longer than the file system takes, or with a null
        return False


def kind_of(path: Path) -> str:
    """The usual suffix of what is in a file, whose name may have any or none; "" for no file, and
    for what is none of these."""
    if (suffix := path.suffix.lower()) in (".onnx", ".hmseg", CHECKPOINT):
        return suffix
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError:
        return ""  # a network's name
    if head.startswith(b"PK"):
        return ".hmseg"
    if head[8:] == b"{":
        return CHECKPOINT
    return ".onnx" if head.startswith(b"\x08") else ""
