"""hmseg eval."""

from pathlib import Path
from typing import Annotated

import typer

from deploy.cli import options, places, training_options
from deploy.cli.console import print_json, say
from deploy.cli.evaluating import judge, print_iou, show_evaluating, to_json
from lut.errors import UserError


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
    """Measure mIoU and per-class IoU over a split.

    Own size, single scale, no flip. One broken frame does not stop the others: each is named, and
    the exit code is 1; so it is where more mIoU is lost against another network than may be.
    """
    from hmseg.data.registry import open_dataset

    if max_miou_loss is not None and against is None:
        raise UserError("--max-miou-loss: name the network in float32 with --against")
    workers = places.read_threads(threads)
    frames = open_dataset(dataset, data, split)
    from deploy.evaluate import check_side, open_side
    from deploy.graph.source import kind_of

    for name in (network, against):
        if name is not None:
            check_side(name, dataset)
    # An artifact knows the mean and standard deviation of an ONNX file, on whichever side it is.
    other = None
    if against is not None and kind_of(Path(against)) == ".hmseg":
        other = open_side(against, frames, dataset, workers)
    side = open_side(network, frames, dataset, workers, other.metadata if other else None)
    found, reference = show_evaluating(side, frames, dataset), None
    if against is not None:
        other = other or open_side(against, frames, dataset, workers, side.metadata)
        reference = show_evaluating(other, frames, dataset)
    if as_json:
        print_json(to_json(found, reference))
    else:
        say(f"{network} on {dataset} {split}, {found.frames} frames")
        print_iou(found, reference)
    judge(found, reference, max_miou_loss)
