"""One allocation for all maps of a frame, sharing bytes where their lives do not meet. No TVM."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

# Bytes: CUDA's of an allocation, more than OpenCL asks of a sub-buffer and than a CPU's vectors do.
ALIGNMENT = 256


class Region(NamedTuple):
    """Bytes of the arena."""

    offset: int
    size: int


@dataclass(frozen=True)
class Life:
    """A map of a frame: its size and the launches, by number, between which it is needed."""

    size: int
    first: int
    last: int


def aligned(size: int) -> int:
    """`size` bytes rounded up to whole places."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def place(lives: Sequence[Life]) -> tuple[list[int], int]:
    """Offsets of the maps, and the bytes that they take in all: the largest map first, each at the
    lowest place that is free while it lives."""
    offsets = [0] * len(lives)
    placed: list[int] = []
    for index in sorted(range(len(lives)), key=lambda i: -lives[i].size):
        life = lives[index]
        meeting = sorted(
            (offsets[other], offsets[other] + aligned(lives[other].size))
            for other in placed
            if lives[other].first <= life.last and life.first <= lives[other].last
        )
        offset = 0
        for start, stop in meeting:
            if offset + aligned(life.size) <= start:
                break
            offset = max(offset, stop)
        offsets[index] = offset
        placed.append(index)
    total = max((o + aligned(life.size) for o, life in zip(offsets, lives, strict=True)), default=0)
    return offsets, total
