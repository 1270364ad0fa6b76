"""Rounds between blocks of a reference whose speed changes."""

from dataclasses import dataclass, field

import pytest

from deploy.measure.rounds import VisitProtocol, steady_rounds, whole_block

PROTOCOL = VisitProtocol(rounds=3, frames=4, warmup=1, attempts=6)


@dataclass
class Reference:
    """A frame takes 100 ns, in some of its blocks longer by a factor."""

    factors: dict[int, float] = field(default_factory=dict)
    asked: list[int] = field(default_factory=list)

    def time_frames(self, frames: int) -> list[int]:
        block = len(self.asked) // 2  # each has its warm-up
        self.asked.append(frames)
        return [round(100 * self.factors.get(block, 1))] * frames


def rounds(factors=None, protocol=PROTOCOL):
    """What `steady_rounds` keeps, by number, of measurements that are numbered; and how many."""
    reference, numbers = Reference(factors or {}), []

    def measure():
        numbers.append(len(numbers))
        return numbers[-1]

    found = steady_rounds(measure, reference, protocol)
    assert reference.asked == [protocol.warmup, protocol.frames] * (len(numbers) + 1)
    return found, len(numbers)


def test_as_many_as_the_protocol_says():
    found, tries = rounds()
    assert [r.measured for r in found] == [0, 1, 2]
    assert tries == 3
    assert all(r.reference == [100] * 8 for r in found)  # before it and after it
    assert {r.change for r in found} == {0}


def test_one_in_which_the_speed_changed_is_measured_again():
    """The reference's third block is slow: the second round ends in it, the third begins there."""
    found, tries = rounds({2: 2})
    assert [r.measured for r in found] == [0, 3, 4]
    assert tries == 5


@pytest.mark.parametrize(("factor", "tries"), [(1.03, 3), (1 / 1.03, 3), (1.05, 5), (1 / 1.05, 5)])
def test_how_much_is_steady(factor, tries):
    assert rounds({1: factor})[1] == tries


def test_a_slow_phase_that_lasts_is_steady():
    found, tries = rounds(dict.fromkeys(range(100), 2))
    assert tries == 3
    assert found[0].reference == [200] * 8


def test_attempts_end_with_the_steadiest_in_the_order_of_time():
    changes = {1: 1.3, 2: 1.0, 3: 1.1, 4: 1.0, 5: 1.2, 6: 1.0}
    found, tries = rounds(changes)
    assert tries == PROTOCOL.attempts
    assert [r.measured for r in found] == [2, 3, 4]
    assert [r.change for r in found] == pytest.approx([0.1, 0.1, 0.2])


def test_a_block_is_what_follows_its_warm_up():
    reference = Reference()
    assert whole_block(reference, PROTOCOL) == [100] * 4
    assert reference.asked == [1, 4]


def test_the_protocol_in_words():
    said = str(VisitProtocol(rounds=5, frames=7, warmup=2, steady=0.04, attempts=9))
    assert said.startswith("5 rounds of 7 frames, 2 warm-up frames a block")
    assert "by 4% or more measured again, up to 9 rounds a visit" in said
