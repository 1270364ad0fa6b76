"""mIoU of a network over a data set, whatever its form, and what one loses to another."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from deploy.graph.source import kind_of
from deploy.metadata import Metadata
from deploy.quantise.gate import points_lost
from deploy.resolution import Resolution
from deploy.runtime import Network, load, open_artifact
from hmseg import zoo
from lut.errors import UserError, WorkError
from lut.files import size_of

if TYPE_CHECKING:
    import numpy as np
    import onnx
    from numpy.typing import NDArray

    from deploy.artifact import Artifact
    from deploy.devices.network import Remote
    from hmseg.data.dataset import SegmentationData
    from hmseg.train.confusion import Confusion
    from hmseg.train.metrics import Predictor

T = TypeVar("T")


@dataclass(frozen=True)
class Side:
    """A network that finds labels: from an image, uint8 (H, W, C), to labels (H, W); how many
    classes they have, the image's channels, and where they are known the network's ends."""

    name: str
    predict: "Predictor"
    classes: int
    channels: int
    metadata: Metadata | None = None


@dataclass(frozen=True)
class Evaluated:
    """Of one side on a split of a data set, which `dataset` names: how many `frames` were
    evaluated, and what is wrong with `broken` ones."""

    name: str
    dataset: str
    data: "SegmentationData"
    confusion: "Confusion"
    frames: int
    broken: tuple[str, ...]

    def require_all(self) -> None:
        """Raise WorkError where a frame failed."""
        if self.broken:
            many = self.frames + len(self.broken)
            raise WorkError(
                f"{len(self.broken)} of {many} frames failed; the mIoU is that of the others"
            )


def evaluate_side(side: Side, data: "SegmentationData", dataset: str) -> Evaluated:
    """Over a split: own size, single scale, no flip; one broken frame does not stop the others.

    Raises UserError for a network of other classes or another size than the data set, which
    `dataset` names, and where no frame can be evaluated.
    """
    from hmseg.train.metrics import evaluate

    if side.classes != len(data.classes):
        raise UserError(
            f"{side.name} tells {side.classes} classes apart, {dataset} has {len(data.classes)}: "
            "name the data set that it was trained on with --dataset"
        )
    frames, broken = replace(data, channels=side.channels), list[str]()
    confusion = evaluate(
        side.predict, frames, side.classes, on_broken=lambda e: broken.append(str(e))
    )
    if len(broken) == len(frames):
        raise UserError(f"no frame can be evaluated: {broken[0]}")
    return Evaluated(
        side.name, dataset, data, confusion, len(frames) - len(broken), tuple(broken)
    )  # fmt: skip


def require_little_loss(reference: Evaluated, found: Evaluated, most: float) -> str:
    """What is lost, in words; raises WorkError for more than `most` points of mIoU, and where there
    is no mIoU."""
    lost = points_lost(reference.confusion.miou, found.confusion.miou)
    text = f"{lost:.3f} points of mIoU are lost (at most {most:g}, --max-miou-loss)"
    if not lost <= most:
        raise WorkError(text)
    return text


def check_side(network: str, dataset: str) -> None:
    """Raise UserError for what `open_side` does not open, as far as its name says: before long
    work."""
    path = Path(network)
    kind = kind_of(path)
    if kind and size_of(path) is None:
        raise UserError(f"{network}: no such file")
    if kind:
        return
    if path.exists():
        raise UserError(f"{network}: neither a checkpoint, an ONNX file nor an artifact")
    from hmseg.pretrained import list_released, load_released

    if network in zoo.list_models():
        load_released(network, dataset)
        return
    there = ", ".join(f"{name} on {on}" for name, on in list_released())
    raise UserError(f"{network}: no such file or released network; released: {there or 'none'}")


def check_frames(name: str, metadata: Metadata, data: "SegmentationData") -> None:
    """Raise UserError for a network that cannot be evaluated on frames of the data's size, or finds
    masks."""
    if metadata.finds_masks:
        raise UserError(
            f"{name} finds a mask of each class, and these may overlap: a data set has one class a "
            "pixel; compile it with --output labels"
        )
    _check_size(name, metadata, first_size(data))


def open_side(
    network: str, data: "SegmentationData", dataset: str, threads: int,
    like: Metadata | None = None,
) -> Side:  # fmt: skip
    """What a name says: a checkpoint, an ONNX file or an artifact for frames of this size, or a
    network with weights that were released for the data set. An ONNX file that is the same network
    as one that is known gets the mean and standard deviation that this is `like`. Raises UserError
    for anything else.
    """
    check_side(network, dataset)
    path, size = Path(network), first_size(data)
    kind = kind_of(path)
    if kind == ".onnx":
        from deploy.reading import read_model

        read = read_model(path, Resolution(*size))  # before torch takes its memory: may be hostile
        from deploy.graph.export import make_deployable

        mean, std = (None, None) if like is None or read.takes_uint8 else (like.mean, like.std)
        graph = make_deployable(read, mean=mean, std=std).graph
        return side_of_graph(str(path), graph, data, threads)
    if kind == ".hmseg":
        return side_of_network(str(path), load(path, threads=threads), data)
    import torch

    from hmseg.pretrained import load_released
    from hmseg.train.checkpoint import Checkpoint
    from hmseg.train.metrics import torch_predictor
    from hmseg.train.trained import trained_network
    from hmseg.zoo import create_model

    torch.set_num_threads(threads)
    if kind != ".safetensors":
        model = create_model(network, pretrained=dataset)
        classes = load_released(network, dataset).num_classes
    else:
        checkpoint = Checkpoint.load(path)
        model, classes = trained_network(checkpoint, path), len(checkpoint.classes)
    # As runs evaluate: in another layout sums are rounded otherwise, which turns ties of 8 bits.
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Side(network, torch_predictor(model), classes, 3)


def side_of_graph(
    name: str, graph: "onnx.ModelProto", data: "SegmentationData", threads: int
) -> Side:
    """A deployable graph in onnxruntime. Raises UserError as `side_of_network`."""
    from deploy.graph.export import read_metadata
    from deploy.graph.reference import OnnxSession

    session = OnnxSession(graph, threads=threads)
    return _side(name, read_metadata(graph), data, lambda given: session.run(given)[0])


def side_of_network(name: str, network: Network, data: "SegmentationData") -> Side:
    """A network that runs. Raises UserError for one that finds masks, or takes another size than
    the data's first frame has."""
    return _side(name, network.metadata, data, network)


def use_network(
    artifact: "Artifact", threads: int, remote: "Remote | None", work: Callable[[Network], T],
    name: str = "the artifact",
) -> T:  # fmt: skip
    """`work` on an artifact where it runs: here, or on a device."""
    if remote is None:
        return work(open_artifact(artifact, name, threads=threads))
    from deploy.backends import backend_of  # late: TVM

    devices = backend_of(artifact.target).devices(threads, remote)
    return devices.use(artifact, lambda session: work(session.network))


def first_size(data: "SegmentationData") -> tuple[int, int]:
    """Height and width of the first frame whose head can be read; raises UserError for none."""
    from hmseg.data.image_file import image_size

    for frame in data.frames:
        try:
            return image_size(frame.image)
        except UserError as error:
            first = error
    raise first


def _side(
    name: str, metadata: Metadata, data: "SegmentationData",
    run: "Callable[[NDArray[Any]], NDArray[Any]]",
) -> Side:  # fmt: skip
    """Of what takes and gives what the metadata says."""
    check_frames(name, metadata, data)

    def predict(image: "NDArray[np.uint8]") -> "NDArray[np.integer]":
        _check_size(name, metadata, image.shape[:2])  # the frames of a data set may differ
        result = run(metadata.network_input(image))
        return metadata.found_in(result) if metadata.output == "logits" else result

    return Side(name, predict, len(metadata.classes), metadata.channels, metadata)


def _check_size(name: str, metadata: Metadata, size: tuple[int, ...]) -> None:
    if tuple(metadata.resolution) != tuple(size):
        frames = "x".join(map(str, size))
        raise UserError(
            f"{name} is made for {metadata.resolution}, the frames are {frames}: compile it with "
            f"--resolution {frames}; an ONNX file of fixed size is exported at {frames} first"
        )
