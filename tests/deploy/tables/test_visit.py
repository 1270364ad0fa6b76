"""A visit to a simulated device whose speed changes; tests/deploy/measure/test_rounds.py has the
rounds alone."""

from dataclasses import dataclass, field

from deploy.measure.rounds import VisitProtocol
from deploy.tables.networks import TimedNetwork
from deploy.tables.visit import measure_visit
from hmseg.genotype import MRMS_GENOTYPE
from lut.ops import Context, InvertedResidual

BLOCK = InvertedResidual(16, 96, 16, 64, 128, residual=True)
CONTEXT = Context(160, 256, 8, 16)
PROTOCOL = VisitProtocol(rounds=3, frames=4, warmup=1, attempts=6)


@dataclass
class Machine:
    """Nanoseconds go by; the speed is a function of the blocks timed so far."""

    slow: set[int] = field(default_factory=set)
    blocks: int = 0

    def factor(self) -> int:
        self.blocks += 1
        return 2 if self.blocks - 1 in self.slow else 1


@dataclass
class Simulated:
    machine: Machine
    kernels_ns: list[int]

    def time_frames(self, frames):
        if frames == PROTOCOL.warmup:
            return [10**9] * frames  # what must not be counted
        return [(sum(self.kernels_ns) + 500) * self.machine.factor()] * frames

    def time_kernels(self, frames):
        factor = self.machine.factor()
        return [[ns * factor for ns in self.kernels_ns]] * frames


def visit(slow=()):
    machine = Machine(set(slow))
    network = TimedNetwork(
        MRMS_GENOTYPE, None, (BLOCK, BLOCK, CONTEXT), (BLOCK, CONTEXT, BLOCK, CONTEXT)
    )
    return measure_visit(
        Simulated(machine, [3000, 700, 5000, 300]), Simulated(machine, [9500]), network,
        "entries", PROTOCOL,
    ), machine  # fmt: skip


def test_samples_are_those_of_one_call():
    found, machine = visit()
    assert found.network == str(MRMS_GENOTYPE)
    assert found.entries[BLOCK].calls == 2
    assert found.entries[BLOCK].samples_us == ((4.0,) * 4,) * 3
    assert found.entries[CONTEXT].calls == 1
    assert found.entries[CONTEXT].samples_us == ((1.0,) * 4,) * 3
    assert found.whole_us == ((9.5,) * 4,) * 3
    assert found.reference_us == ((10.0,) * 8,) * 3
    assert machine.blocks == 1 + 3 * 3  # the reference once before, and after each round


def test_a_slow_phase_that_lasts_is_scaled_away():
    found, _ = visit(slow=range(100))
    assert found.entries[BLOCK].samples_us == ((8.0,) * 4,) * 3
    assert found.entry_us(BLOCK, 10.0) == [4.0] * 3


def test_a_round_in_which_the_speed_changed_is_measured_again():
    """The second: its kernels, the whole frame, and the reference after it."""
    found, machine = visit(slow={4, 5, 6})
    assert machine.blocks == 1 + 5 * 3  # its slow reference spoils the third round too
    assert found.entries[BLOCK].samples_us == ((4.0,) * 4,) * 3
