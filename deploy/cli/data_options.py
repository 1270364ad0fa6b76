"""The options of the commands that read a data set."""

from pathlib import Path
from typing import Annotated

import typer

Dataset = Annotated[str, typer.Option("--dataset", help="camvid, cityscapes or lip.")]
Data = Annotated[
    Path, typer.Option("--data", envvar="HMSEG_DATA", help="The data set's root folder.")
]
