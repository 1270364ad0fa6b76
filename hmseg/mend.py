"""What would help, said in data: the `mend` of the errors that this package raises.

Which command of a program does it is the program's to say. Light: a program needs these to print
an error.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Resume:
    """To go on with the run or the search in a folder."""

    work: Literal["train", "search"]
    folder: Path


@dataclass(frozen=True)
class Train:
    """To train a network on a data set."""

    model: str
    data: str


@dataclass(frozen=True)
class NameTable:
    """To name a latency table, or to measure one first."""
