"""The options that the commands on a data set share: search, train and eval."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lut.errors import UserError

if TYPE_CHECKING:
    import torch

Dataset = Annotated[str, typer.Option("--dataset", help="camvid, cityscapes or lip.")]
Data = Annotated[
    Path, typer.Option("--data", envvar="HMSEG_DATA", help="The data set's root folder.")
]
Scale = Annotated[str, typer.Option(help="LEAST,MOST of the random scale.")]
ClassBalance = Annotated[
    float, typer.Option(help="C of class weights 1/log(C + share), e.g. 1.02; 0: none.")
]
Precision = Annotated[str, typer.Option(help="float32, bfloat16 (autocast) or float64.")]
ChannelsLast = Annotated[bool, typer.Option(help="Memory layout.")]
Device = Annotated[str, typer.Option(help="cpu or cuda.")]
Threads = Annotated[
    int | None, typer.Option(help="Threads of each process on the CPU; torch's default.")
]
LoaderThreads = Annotated[int, typer.Option(help="Threads that make samples.")]
LogEvery = Annotated[int, typer.Option(help="Steps between lines of the log.")]
CheckpointEvery = Annotated[int, typer.Option(help="Steps between checkpoints.")]


def check_counts(values: dict[str, Any], names: Sequence[str]) -> None:
    """Raise UserError where one of these options, or --threads, or --lr is too small."""
    for name in names:
        if values[name] < 1:
            raise UserError(f"--{name.replace('_', '-')} {values[name]}: it must be at least 1")
    if values["threads"] is not None and values["threads"] < 1:
        raise UserError(f"--threads {values['threads']}: it must be at least 1")
    if not values["lr"] > 0:
        raise UserError(f"--lr {values['lr']:g}: it must be above 0")


def read_scale(text: str) -> tuple[float, float]:
    """Two numbers above 0, the smaller first; raises UserError for anything else."""
    try:
        least, most = (float(word) for word in text.split(","))
    except ValueError:
        raise UserError(f"--scale {text!r}: write two numbers, such as 0.5,2") from None
    if not 0 < least <= most:
        raise UserError(f"--scale {text!r}: the two must be above 0, the smaller first")
    return least, most


def open_device(name: str) -> "torch.device":
    """cpu, or this process's CUDA device; raises UserError for anything else."""
    import os

    import torch

    if name == "cpu":
        return torch.device("cpu")
    if name != "cuda":
        raise UserError(f"--device {name}: choose cpu or cuda")
    if not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no CUDA device here; use --device cpu")
    place = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(place)
    return place
