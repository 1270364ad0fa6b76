import pytest

from deploy.measure.interleave import Protocol, interleave
from lut.errors import UserError


class Lab:
    """A clock that only the calls and the pauses move, and a diary of what happened."""

    def __init__(self) -> None:
        self.now = 0
        self.diary: list[str] = []

    def clock(self) -> int:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += int(seconds * 1e9)
        self.diary.append(f"pause {seconds}")

    def side(self, name: str, nanoseconds: int):
        def call() -> None:
            self.now += nanoseconds
            self.diary.append(name)

        return call

    def protocol(self, **options: int) -> Protocol:
        return Protocol(clock_ns=self.clock, sleep=self.sleep, pause_s=0.5, **options)


def test_order_blocks_and_what_is_counted():
    lab = Lab()
    rounds: list[int] = []
    samples = interleave(
        {"a": lab.side("a", 5), "b": lab.side("b", 7)},
        lab.protocol(warmup=2, repeat=3, rounds=3),
        rounds.append,
    )
    assert samples == {"a": [[5, 5, 5]] * 3, "b": [[7, 7, 7]] * 3}
    block_a, block_b = ["pause 0.5", *"aaaaa"], ["pause 0.5", *"bbbbb"]
    assert lab.diary == block_a + block_b + block_b + block_a + block_a + block_b
    assert rounds == [1, 2, 3]


def test_the_warm_up_is_not_counted():
    lab = Lab()
    durations = iter([1000, 1000, 3, 4])

    def call() -> None:
        lab.now += next(durations)

    samples = interleave({"a": call}, lab.protocol(warmup=2, repeat=2, rounds=1))
    assert samples == {"a": [[3, 4]]}


def test_three_sides_each_come_first_and_last():
    lab = Lab()
    interleave(
        {name: lab.side(name, 1) for name in "abc"}, lab.protocol(warmup=0, repeat=1, rounds=2)
    )
    assert [entry for entry in lab.diary if len(entry) == 1] == list("abccba")


def test_an_exception_of_a_side_is_not_swallowed():
    def broken() -> None:
        raise RuntimeError("the network failed")

    with pytest.raises(RuntimeError, match="the network failed"):
        interleave({"a": broken}, Lab().protocol(warmup=0, repeat=1, rounds=1))


@pytest.mark.parametrize("options", [{"warmup": -1}, {"repeat": 0}, {"rounds": 0}, {"rounds": -5}])
def test_impossible_protocols(options):
    with pytest.raises(UserError, match="warmup must be"):
        Protocol(**options)


def test_the_real_clock_measures_nanoseconds():
    import time

    samples = interleave({"a": lambda: time.sleep(0.002)}, Protocol(1, 3, 1, pause_s=0))
    assert all(sample >= 2_000_000 for sample in samples["a"][0])
