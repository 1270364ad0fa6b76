"""Work spread over devices that are played; test_faults.py ends real ones."""

import threading
import time
from types import SimpleNamespace

import pytest

from deploy.devices import session as sessions
from deploy.devices import spread as spreading
from deploy.devices.session import DeviceLostError
from deploy.devices.spread import TRIES, spread
from lut.errors import UserError, WorkError
from tests.deploy.devices.played import boards


def test_results_are_in_the_order_of_the_items_and_saved_as_they_come(monkeypatch):
    played, saved, other = boards(monkeypatch, "a", "b"), [], threading.Event()

    def work(session, x):
        if x == 0:
            other.wait(20)  # for the other device
        else:
            other.set()
        return session.name, 10 * x

    found = spread(played.farm, range(5), work, on_result=lambda x, y: saved.append((x, y[1])))
    assert [y for _, y in found] == [0, 10, 20, 30, 40]
    assert sorted(saved) == [(x, 10 * x) for x in range(5)]
    assert {name for name, _ in found} == {"a", "b"}
    assert len(played.sessions) == 2
    assert played.free.qsize() == 2  # both are given back


def test_devices_work_at_once(monkeypatch):
    played, both = boards(monkeypatch, "a", "b"), threading.Barrier(2, timeout=20)
    assert spread(played.farm, [1, 2], lambda _s, x: (both.wait(), x)[1]) == [1, 2]


def test_no_more_sessions_than_items(monkeypatch):
    played = boards(monkeypatch, "a", "b", "c")
    assert spread(played.farm, [1], lambda _s, x: x) == [1]
    assert len(played.sessions) == 1
    monkeypatch.setattr(sessions, "require_key", None)
    assert spread(played.farm, [], lambda _s, x: x) == []  # nobody is asked


def test_the_item_of_a_lost_device_is_done_by_another(monkeypatch):
    played, lost, saved = boards(monkeypatch, "a", "b"), [], []
    both = threading.Barrier(2, timeout=20)

    def work(session, x):
        if x < 2:
            both.wait()  # each has one
            if session.name == "a":
                raise session.lose()
        return x

    def wait_no_more(session, x):
        return x if lost else work(session, x)

    found = spread(
        played.farm, [0, 1, 2], wait_no_more, on_result=lambda x, _: saved.append(x),
        on_lost=lost.append,
    )  # fmt: skip
    assert found == [0, 1, 2]
    assert sorted(saved) == [0, 1, 2]
    assert lost == ["the connection to device a broke"]


def test_an_item_whose_devices_are_all_lost_is_reported_after_those_before(monkeypatch):
    """Each time a device is back; the item is not to be done on any."""
    played, saved, tries = boards(monkeypatch, "a"), [], []

    def work(session, x):
        if x == 2:
            tries.append(x)
            raise DeviceLostError(f"device {session.name} crashed")
        return x

    with pytest.raises(DeviceLostError, match="device a crashed"):
        spread(played.farm, [1, 2, 3], work, on_result=lambda x, _: saved.append(x))
    assert saved == [1]
    assert len(tries) == TRIES


def test_where_all_are_lost(monkeypatch):
    played = boards(monkeypatch, "a", "b")

    def work(session, _x):
        raise session.lose()

    with pytest.raises(WorkError, match="all devices stayed busy"):
        spread(played.farm, [1, 2, 3], work)


def test_a_device_that_cannot_be_had_is_done_without(monkeypatch):
    """Somebody else has it: the other one does all of the work."""
    played, lost = boards(monkeypatch, "a", "b"), []
    with played.open_session(played.farm) as others:
        found = spread(
            played.farm, [1] * 4, lambda session, _: (time.sleep(0.1), session.name)[1],
            on_lost=lost.append,
        )  # fmt: skip
    assert set(found) == {"a", "b"} - {others.name}
    assert lost == ["all devices stayed busy for 0.2 s; going on without it"]


def test_none_that_can_be_had(monkeypatch):
    played = boards(monkeypatch, "a")
    with (
        played.open_session(played.farm),
        pytest.raises(WorkError, match="all devices stayed busy"),
    ):
        spread(played.farm, [1], lambda _s, x: x)


def test_a_mistake_ends_it_after_what_is_under_way(monkeypatch):
    played, saved, both = boards(monkeypatch, "a", "b"), [], threading.Barrier(2, timeout=20)

    def work(_session, x):
        both.wait()
        if x == 1:
            raise UserError("another version")
        time.sleep(0.1)
        return x

    with pytest.raises(UserError, match="another version"):
        spread(played.farm, [1, 2, 3, 4], work, on_result=lambda x, _: saved.append(x))
    assert saved == [2]


def test_a_bug_is_told_rather_than_what_it_brought_about(monkeypatch):
    played, both = boards(monkeypatch, "a", "b"), threading.Barrier(2, timeout=20)

    def work(_session, x):
        both.wait()
        if x == 1:
            raise WorkError("failed")
        time.sleep(0.1)
        raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        spread(played.farm, [1, 2], work)


def test_after_an_interrupt_nothing_is_saved(monkeypatch):
    """The work goes on in its thread, whose result nobody waits for."""
    played, saved, go_on = boards(monkeypatch, "a"), [], threading.Event()
    threads = []

    class Interrupted(threading.Thread):
        def join(self, timeout=None):
            threads.append(self)
            raise KeyboardInterrupt

    monkeypatch.setattr(
        spreading, "threading", SimpleNamespace(Thread=Interrupted, Lock=threading.Lock)
    )
    with pytest.raises(KeyboardInterrupt):
        spread(
            played.farm, [1, 2], lambda _s, x: (go_on.wait(20), x)[1],
            on_result=lambda x, _: saved.append(x),
        )  # fmt: skip
    go_on.set()
    threading.Thread.join(threads[0], 20)
    assert saved == []
