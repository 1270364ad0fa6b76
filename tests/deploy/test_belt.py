import threading
import time

import pytest

from deploy.belt import Belt


def made(belt: Belt[int], count: int) -> threading.Thread:
    """A thread that puts 0, 1, ... on a belt."""

    def make() -> None:
        for number in range(count):
            if not belt.put(number):
                return
        belt.end()

    thread = threading.Thread(target=make, daemon=True)
    thread.start()
    return thread


def waits(thread: threading.Thread) -> bool:
    thread.join(0.1)
    return thread.is_alive()


def test_all_arrive_in_order():
    belt = Belt[int](2)
    thread = made(belt, 500)
    assert list(belt) == list(range(500))
    thread.join(10)
    assert (thread.is_alive(), belt.dropped) == (False, 0)


def test_a_full_belt_makes_its_maker_wait():
    belt = Belt[int](2)
    thread = made(belt, 4)
    assert waits(thread)
    taken = iter(belt)
    assert [next(taken), next(taken)] == [0, 1]
    thread.join(10)
    assert not thread.is_alive()
    assert list(taken) == [2, 3]


def test_where_the_newest_wins_nobody_waits():
    belt = Belt[int](2, newest=True)
    made(belt, 100).join(10)
    assert list(belt) == [98, 99]
    assert belt.dropped == 98


def test_an_empty_belt_makes_its_taker_wait():
    belt, taken = Belt[int](1), []
    thread = threading.Thread(target=lambda: taken.extend(belt), daemon=True)
    thread.start()
    assert waits(thread)
    belt.put(7)
    belt.end()
    thread.join(10)
    assert taken == [7]


def test_a_taker_that_leaves_frees_its_maker():
    belt = Belt[int](1)
    thread = made(belt, 10)
    assert waits(thread)
    belt.leave()
    thread.join(10)
    assert not thread.is_alive()
    assert belt.put(1) is False


def test_an_error_arrives_at_once_and_the_first_counts():
    belt = Belt[int](2)
    belt.put(1)
    belt.end(RuntimeError("broken"))
    belt.end()
    with pytest.raises(RuntimeError, match="broken"):
        next(iter(belt))


def test_a_taker_that_has_taken_its_last_is_told():
    belt = Belt[int](1)
    threading.Thread(target=lambda: (time.sleep(0.1), belt.end()), daemon=True).start()
    assert list(belt) == []
