"""One measurement: which network at which size, and how often it is called."""

from dataclasses import dataclass
from typing import Any

from deploy.measure.interleave import Protocol
from deploy.resolution import Resolution

ROUNDS = 5
# A block of calls should take a second or two. How long a call takes is guessed from its
# multiply-adds, not measured: the same job is measured in the same way everywhere.
_GUESSED_MACS_PER_S, _BLOCK_S = 1e11, 2.0
_FEWEST, _MOST = 3, 20  # calls of a block
_LONG_S = 0.2  # a call that is so long needs one to warm up


@dataclass(frozen=True)
class Job:
    """A network (`hmseg.create_model`) at a size; `profiled`: its kernels are timed too."""

    network: str
    resolution: Resolution
    classes: int
    profiled: bool = False

    def __str__(self) -> str:
        return f"{self.network} {self.resolution}"

    def to_json(self) -> dict[str, Any]:
        """The fields of a record that say what was measured."""
        return {
            "network": self.network, "resolution": str(self.resolution), "classes": self.classes,
            "profiled": self.profiled,
        }  # fmt: skip


def protocol_of(macs: int, rounds: int) -> Protocol:
    """Blocks of 3 to 20 calls, fewer of a large network."""
    guess_s = macs / _GUESSED_MACS_PER_S
    repeat = max(_FEWEST, min(_MOST, round(_BLOCK_S / max(guess_s, 1e-9))))
    return Protocol(warmup=1 if guess_s > _LONG_S else 3, repeat=repeat, rounds=rounds)


def describe_protocol(rounds: int) -> str:
    """`protocol_of` in words, for provenance."""
    return (
        f"{rounds} rounds of blocks of {_FEWEST} to {_MOST} calls by multiply-adds, sides in turn"
    )
