"""What a user would run instead of our binary."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from deploy.precision import FP32


@dataclass(frozen=True)
class Peer:
    """`run` makes a frame, from the input on the host to the output there. `note` is what has to be
    known about it, else empty; `precision` what it computes in."""

    run: Callable[[], NDArray[Any]]
    note: str = ""
    precision: str = FP32.name
