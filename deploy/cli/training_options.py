"""The options that the commands on a data set share: search, train and eval."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lut.errors import UserError

if TYPE_CHECKING:
    from hmseg.train.compute import Compute

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
BackboneRate = Annotated[
    float, typer.Option(help="Share of the learning rate that all but the head has.")
]
Teacher = Annotated[
    Path | None, typer.Option(help="A checkpoint of a network to learn from besides.")
]
SoftWeight = Annotated[float, typer.Option(help="Of a teacher's soft labels.")]
Temperature = Annotated[float, typer.Option(help="Of the soft labels.")]
FeatureWeight = Annotated[
    float, typer.Option(help="Of how alike a teacher finds places of C4 and C5.")
]
LogEvery = Annotated[int, typer.Option(min=1, help="Steps between lines of the log.")]
CheckpointEvery = Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")]


@dataclass(frozen=True)
class ComputeOptions:
    """On what it is computed."""

    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu"
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of each process on the CPU; torch's default.")
    ] = None
    loader_threads: Annotated[int, typer.Option(min=1, help="Threads that make samples.")] = 2

    def read(self) -> "Compute":
        """The same for the library, to which the process belongs from here on."""
        from hmseg.train.compute import Compute

        compute = Compute(self.device, self.threads, self.loader_threads)
        compute.own_process()
        return compute


def read_scale(text: str) -> tuple[float, float]:
    """Two numbers above 0, the smaller first; raises UserError for anything else."""
    try:
        least, most = (float(word) for word in text.split(","))
    except ValueError:
        raise UserError(f"--scale {text!r}: write two numbers, such as 0.5,2") from None
    if not 0 < least <= most:
        raise UserError(f"--scale {text!r}: the two must be above 0, the smaller first")
    return least, most
