"""The timing protocol: sides in turn, in blocks of calls.

Machines drift by a factor of two for minutes, so sides are only compared within one run, block by
block. Within a block one side runs alone: thread pools spin after a call and would steal the
other's cores if calls alternated. Before each block a pause lets the other pool go to sleep, and
calls that are not counted wake up this one.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from lut.errors import UserError

Samples = list[list[int]]  # nanoseconds, a list per round


@dataclass(frozen=True)
class Protocol:
    """How often to call each side.

    `warmup` calls before each block, `repeat` calls counted in it, `rounds` blocks of each side.
    """

    warmup: int = 3
    repeat: int = 20
    rounds: int = 7
    pause_s: float = 0.05
    clock_ns: Callable[[], int] = field(default=time.perf_counter_ns, repr=False)
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)

    def __post_init__(self) -> None:
        if self.warmup < 0 or self.repeat < 1 or self.rounds < 1:
            raise UserError(
                f"warmup {self.warmup}, repeat {self.repeat}, rounds {self.rounds}: warmup must be "
                "at least 0, the others at least 1"
            )


def interleave(
    sides: Mapping[str, Callable[[], object]],
    protocol: Protocol,
    on_round: Callable[[int], None] = lambda _: None,
) -> dict[str, Samples]:
    """Time calls of the sides in turn, by this machine's clock (`interleave_blocks`)."""
    blocks = {name: partial(time_block, call) for name, call in sides.items()}
    return interleave_blocks(blocks, protocol, on_round)


def interleave_blocks(
    sides: Mapping[str, Callable[[Protocol], list[int]]],
    protocol: Protocol,
    on_round: Callable[[int], None] = lambda _: None,
) -> dict[str, Samples]:
    """Time the sides in turn, a block of each in every round; the order turns around, so that none
    always comes first.

    Returns the samples of each side, in nanoseconds, a list for each round.
    """
    samples: dict[str, Samples] = {name: [] for name in sides}
    names = list(sides)
    for index in range(protocol.rounds):
        for name in names if index % 2 == 0 else reversed(names):
            samples[name].append(sides[name](protocol))
        on_round(index + 1)
    return samples


def time_block(call: Callable[[], object], protocol: Protocol) -> list[int]:
    """Nanoseconds of each counted call of a block, after a pause and calls that are not counted."""
    protocol.sleep(protocol.pause_s)
    for _ in range(protocol.warmup):
        call()
    block = []
    for _ in range(protocol.repeat):
        start = protocol.clock_ns()
        call()
        block.append(protocol.clock_ns() - start)
    return block
