"""Rounds of a measurement between blocks of a reference network.

Shared machines change speed, for seconds or minutes, by a factor of up to two. So each round's
samples are kept with the reference's before and after it, to which a table scales them, and a round
in which the reference itself changed is measured again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Generic, TypeVar

from deploy.measure.device import Session

T = TypeVar("T")


@dataclass(frozen=True)
class VisitProtocol:
    """`rounds` blocks of `frames` frames, each after `warmup` frames that are not counted.

    A round counts where the reference's medians before and after it differ by less than `steady`;
    after `attempts` rounds the steadiest count.
    """

    rounds: int = 4
    frames: int = 10
    warmup: int = 3
    steady: float = 0.04
    attempts: int = 12

    def __str__(self) -> str:
        return (
            f"{self.rounds} rounds of {self.frames} frames, {self.warmup} warm-up frames a block; "
            "kernels by the clock inside the network's frames; the reference network (MRMS) before "
            "and after each round; samples scaled to the reference's median over the table; rounds "
            f"in which it changed by {self.steady:.0%} or more measured again, up to "
            f"{self.attempts} rounds a visit"
        )


@dataclass(frozen=True)
class Round(Generic[T]):
    """What was measured in a round, and the reference's nanoseconds before and after it."""

    measured: T
    reference: list[int]
    change: float  # of the reference's median over the round, relative


def steady_rounds(
    measure: Callable[[], T], reference: Session, protocol: VisitProtocol
) -> list[Round[T]]:
    """Call `measure` between blocks of the reference until there are enough steady rounds."""
    rounds: list[Round[T]] = []
    before = whole_block(reference, protocol)
    for _ in range(protocol.attempts):
        measured = measure()
        after = whole_block(reference, protocol)
        low, high = sorted((median(before), median(after)))
        rounds.append(Round(measured, before + after, high / low - 1))
        before = after
        if sum(r.change < protocol.steady for r in rounds) == protocol.rounds:
            break
    # The steadiest, in the order of time.
    limit = sorted(r.change for r in rounds)[: protocol.rounds][-1]
    return [r for r in rounds if r.change <= limit][: protocol.rounds]


def whole_block(session: Session, protocol: VisitProtocol) -> list[int]:
    """Nanoseconds of a block of whole frames, after its warm-up."""
    session.time_frames(protocol.warmup)
    return session.time_frames(protocol.frames)
