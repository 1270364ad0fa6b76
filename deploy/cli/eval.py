"""hmseg eval."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from deploy.cli import options, places, training_options
from deploy.cli.console import print_json, print_table, say, step
from deploy.graph.source import kind_of
from deploy.resolution import Resolution
from lut.errors import UserError, WorkError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from deploy.metadata import Metadata
    from hmseg.data.dataset import SegmentationData
    from hmseg.train.confusion import Confusion
    from hmseg.train.metrics import Predictor

MAX_MIOU_LOSS = 0.5  # percentage points


def evaluate_network(
    network: Annotated[
        str,
        typer.Argument(
            help="A checkpoint of hmseg train (.safetensors), an ONNX file, an artifact (.hmseg), "
            "or the name of a network with released weights."
        ),
    ],
    data: training_options.Data,
    dataset: training_options.Dataset = "camvid",
    split: Annotated[str, typer.Option("--split", help="train, val or test.")] = "val",
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            help="The same network in float32, as above: its mIoU stands beside, and what is lost "
            "to it is judged.",
        ),
    ] = None,
    max_miou_loss: options.MaxMiouLoss = None,
    threads: places.Threads = None,
    as_json: options.Json = False,
) -> None:
    """Measure mIoU and per-class IoU over a split: own size, single scale, no flip.

    One broken frame does not stop the others: each is named, and the exit code is 1; so it is where
    more mIoU is lost against another network than may be.
    """
    from hmseg.data.registry import open_dataset

    if max_miou_loss is not None and against is None:
        raise UserError("--max-miou-loss: name the network in float32 with --against")
    workers = places.read_threads(threads)
    frames = open_dataset(dataset, data, split)
    found = _measure(network, frames, dataset, workers)
    reference = None if against is None else _measure(against, frames, dataset, workers)
    classes = frames.classes.names
    iou = dict(zip(classes, found.confusion.iou_or_none, strict=True))
    if as_json:
        values = {
            "network": network, "dataset": dataset, "split": split, "frames": found.frames,
            "miou": found.confusion.miou, "iou": iou,
        }  # fmt: skip
        if reference:
            values |= {"against": against, "against_miou": reference.confusion.miou}
        print_json(values)
    else:
        say(f"{network} on {dataset} {split}, {found.frames} frames")
        sides = [found, *([reference] if reference else [])]
        rows = [
            (name, *("absent" if v is None else f"{100 * v:.1f}" for v in values))
            for name, *values in zip(
                classes, *(side.confusion.iou_or_none for side in sides), strict=True
            )
        ]
        means = ("mean", *(f"{100 * side.confusion.miou:.2f}" for side in sides))
        columns = ("class", "IoU %", *(["against, IoU %"] if reference else []))
        print_table("", columns, [*rows, means])
    for side in (found, *([reference] if reference else [])):
        _require_all(side.broken, len(frames))
    if reference:
        most = MAX_MIOU_LOSS if max_miou_loss is None else max_miou_loss
        _require_little_loss(reference.confusion.miou, found.confusion.miou, most)


class _Found(NamedTuple):
    """Of one network: how many `frames` were evaluated, and what is wrong with `broken` ones."""

    confusion: "Confusion"
    frames: int
    broken: list[str]


def _measure(network: str, frames: "SegmentationData", dataset: str, threads: int) -> _Found:
    """Raises UserError for a network of other classes or another size, and where no frame can be
    evaluated."""
    predict, classes, channels = _open_predictor(network, dataset, _first_size(frames), threads)
    frames = replace(frames, channels=channels)
    from hmseg.train.metrics import evaluate

    if classes != len(frames.classes):
        raise UserError(
            f"{network} tells {classes} classes apart, {dataset} has {len(frames.classes)}: name "
            "the data set that it was trained on with --dataset"
        )
    broken: list[str] = []
    with step(f"evaluating {len(frames)} frames") as current:
        confusion = evaluate(predict, frames, classes, on_broken=lambda e: broken.append(str(e)))
        if len(broken) == len(frames):
            raise UserError(f"no frame can be evaluated: {broken[0]}")
        current.result = f"mIoU {100 * confusion.miou:.2f}%"
    for message in broken:
        say(f"failed: {message}")
    return _Found(confusion, len(frames) - len(broken), broken)


def _require_little_loss(reference: float, found: float, most: float) -> None:
    """In shares, of percentage points; raises WorkError for more, and where there is no mIoU."""
    lost = 100 * (reference - found)
    text = f"{lost:.3f} points of mIoU are lost (at most {most:g}, --max-miou-loss)"
    if not lost <= most:
        raise WorkError(text)
    say(text)


def _first_size(frames: "SegmentationData") -> tuple[int, int]:
    """Height and width of the first frame whose head can be read."""
    from hmseg.data.image_file import image_size

    for frame in frames.frames:
        try:
            return image_size(frame.image)
        except UserError as error:
            first = error
    raise first


def _require_all(broken: list[str], frames: int) -> None:
    if broken:
        raise WorkError(f"{len(broken)} of {frames} frames failed; the mIoU is that of the others")


def _open_predictor(
    network: str, dataset: str, size: tuple[int, ...], threads: int
) -> tuple["Predictor", int, int]:
    """The function from an image to its labels, how many classes they have, and the image's
    channels."""
    path = Path(network)
    kind = kind_of(path)
    if kind == ".onnx":
        return _open_onnx(path, size, threads)
    if kind == ".hmseg":
        return _open_artifact(path, size, threads)
    import torch

    from hmseg.pretrained import load_released
    from hmseg.train.checkpoint import Checkpoint
    from hmseg.train.metrics import torch_predictor
    from hmseg.train.trained import trained_network
    from hmseg.zoo import create_model

    torch.set_num_threads(threads)
    if kind != ".safetensors":
        model = create_model(network, pretrained=dataset)
        return torch_predictor(model), load_released(network, dataset).num_classes, 3
    checkpoint = Checkpoint.load(path)
    return torch_predictor(trained_network(checkpoint, path)), len(checkpoint.classes), 3


def _open_onnx(path: Path, size: tuple[int, ...], threads: int) -> tuple["Predictor", int, int]:
    from deploy.reading import read_model

    read = read_model(path, Resolution(*size))  # before torch takes its memory: it may be hostile
    from deploy.graph.export import make_deployable, read_metadata
    from deploy.graph.reference import OnnxSession

    graph = make_deployable(read).graph
    session = OnnxSession(graph, threads=threads)
    return _predictor(path, read_metadata(graph), size, lambda given: session.run(given)[0])


def _open_artifact(path: Path, size: tuple[int, ...], threads: int) -> tuple["Predictor", int, int]:
    from deploy.runtime import load

    network = load(path, threads=threads)
    return _predictor(path, network.metadata, size, network)


def _predictor(
    path: Path, metadata: "Metadata", size: tuple[int, ...],
    run: "Callable[[NDArray[Any]], NDArray[Any]]",
) -> tuple["Predictor", int, int]:  # fmt: skip
    """Of what takes and gives what the metadata says."""
    if metadata.finds_masks:
        raise UserError(
            f"{path} finds a mask of each class, and these may overlap: a data set has one class a "
            "pixel; compile it with --output labels"
        )
    _check_size(path, metadata, size)

    def predict(image: "NDArray[np.uint8]") -> "NDArray[np.integer]":
        _check_size(path, metadata, image.shape[:2])  # the frames of a data set may differ
        result = run(metadata.network_input(image))
        return metadata.found_in(result) if metadata.output == "logits" else result

    return predict, len(metadata.classes), metadata.channels


def _check_size(path: Path, metadata: "Metadata", size: tuple[int, ...]) -> None:
    if tuple(metadata.resolution) != tuple(size):
        frames = "x".join(map(str, size))
        raise UserError(
            f"{path} is made for {metadata.resolution}, the frames are {frames}: export or "
            f"compile it with --resolution {frames}"
        )
