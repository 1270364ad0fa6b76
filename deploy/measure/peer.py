"""What a user would run instead of our binary."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray


@dataclass(frozen=True)
class Peer:
    """`run` makes a frame, from the input on the host to the output there. `note` is what has to be
    known about it, else empty."""

    run: Callable[[], NDArray[Any]]
    note: str = ""
