"""What goes wrong with real devices: a clear line, another device where there is one, nothing lost,
nothing left behind. test_spread.py plays what needs no process to end."""

import os
import signal
import socket
import threading
import time

import pytest

from deploy.devices.address import parse_address
from deploy.devices.session import DeviceLostError, open_session
from deploy.devices.spread import spread
from deploy.devices.tracker import states
from lut.errors import UserError, WorkError
from tests.deploy.devices.farm import alive, children, until
from tests.deploy.devices.naps import library, nap


@pytest.fixture(scope="module")
def one(farm):
    """A server that every test but two shares: it outlives what is done to its sessions."""
    library()
    return farm.serve("one")[0]


@pytest.fixture
def server(farm, one):
    """It, free."""
    until(lambda: farm.free("one") == 1, 20, "the server that the last test left")
    return one


def only_child(process) -> int:
    until(lambda: len(children(process.pid)) == 1, 10, "the session's process")
    return children(process.pid)[0]


def test_a_server_killed_while_it_measures(farm):
    """Its item is done by the other device; the session's process dies with its server."""
    library()
    servers = farm.serve("pair", 2)
    lost: list[str] = []
    saved: list[float] = []
    serving: list[int] = []

    started: list[float] = []

    def work(session, x):
        session.describe()  # connected
        started.append(x)
        return nap(session, 3, x)

    def kill_one() -> None:
        until(lambda: len(started) == 2, 60, "two measurements")
        time.sleep(1)  # inside the kernel
        serving.extend(children(servers[0].pid))
        servers[0].kill()

    killer = threading.Thread(target=kill_one)
    killer.start()
    results = spread(
        farm.farm("pair"), [1.0, 2.0, 3.0], work,
        on_result=lambda _, y: saved.append(y), on_lost=lost.append,
    )  # fmt: skip
    killer.join()
    assert results == [2.0, 3.0, 4.0]
    assert sorted(saved) == results
    assert len(lost) == 1
    assert "broke while running nap3" in lost[0]
    assert "\n" not in lost[0]
    until(lambda: not any(alive(pid) for pid in serving), 5, "the end of the killed session")
    servers[1].kill()


def test_a_session_that_crashes_leaves_a_server_that_serves_again(farm, server):
    with open_session(farm.farm("one")) as session:
        assert nap(session, 0) == 1.0
        os.kill(only_child(server), signal.SIGKILL)
        with pytest.raises(DeviceLostError, match="broke while"):
            nap(session, 0)
    with open_session(farm.farm("one"), patience_s=20) as session:
        assert nap(session, 0, 4.0) == 5.0


@pytest.mark.parametrize("said", [b"", b"\x03\x02"])
def test_a_connection_that_stays_silent_keeps_nobody_out(farm, server, said):
    (state,) = (state for state in states(farm.tracker) if state.key == "one")
    place = parse_address(state.devices[0])
    with socket.create_connection(place, timeout=30) as silent:
        silent.sendall(said)
        time.sleep(0.3)  # it is the first in the queue
        with open_session(farm.farm("one"), patience_s=30) as session:
            assert nap(session, 0, 4.0) == 5.0
        assert silent.recv(1) == b""  # dropped


def test_the_tracker_drops_who_says_nothing_and_keeps_who_registered(farm, server):
    with socket.create_connection(farm.tracker, timeout=30) as silent:
        assert [state.key for state in states(farm.tracker)].count("one") == 1
        assert silent.recv(1) == b""  # dropped
    (state,) = (state for state in states(farm.tracker) if state.key == "one")
    assert state.free == 1


def test_a_kernel_that_never_ends(farm, server):
    start = time.monotonic()
    with (
        pytest.raises(DeviceLostError, match=r"did not answer within 2 s while running nap3600"),
        open_session(farm.farm("one", call_limit_s=2.0)) as session,
    ):
        nap(session, 3600)
    assert time.monotonic() - start < 15
    # The hung process goes, and the device is there for the next one.
    until(lambda: farm.free("one") == 1, 20, "the device's return")
    assert not children(server.pid)
    with open_session(farm.farm("one")) as session:
        assert nap(session, 0) == 1.0


def test_a_client_that_is_killed_leaves_no_process_on_the_device(farm, server):
    client = farm.visit("one")
    until(lambda: bool(children(server.pid)), 60, "the session")
    time.sleep(2)  # inside the kernel
    client.kill()
    until(lambda: not children(server.pid), 15, "the end of the session")
    until(lambda: farm.free("one") == 1, 15, "the device's return")


def test_an_upload_that_is_cut_off(farm, server):
    """The device's process is stopped, so that the upload stands, then killed in its middle; the
    same work is done when the server is back."""
    tries: list[str] = []
    big = bytes(64 << 20)

    def work(session, _item):
        if not tries:
            child = only_child(server)
            os.kill(child, signal.SIGSTOP)
            threading.Timer(1.0, os.kill, (child, signal.SIGKILL)).start()
            tries.append("cut")
            session.upload(big)
        return nap(session, 0)

    lost: list[str] = []
    assert spread(farm.farm("one"), [None], work, on_lost=lost.append) == [1.0]
    assert len(lost) == 1
    assert "broke while uploading 67.1 MB" in lost[0]


def test_a_device_without_memory(farm):
    import tvm

    farm.serve("small", address_space=6_000_000 << 10)
    with open_session(farm.farm("small")) as session:
        with pytest.raises(WorkError, match="ran out of memory while making room") as caught:
            session.call(
                "making room",
                lambda: tvm.runtime.empty((3 << 30,), "float32", device=session.rpc.cpu()),
            )
        assert not isinstance(caught.value, DeviceLostError)  # another try would not help
        assert "\n" not in str(caught.value)
    with open_session(farm.farm("small"), patience_s=20) as session:
        assert nap(session, 0) == 1.0


def test_a_tracker_that_is_restarted(farm, server):
    with open_session(farm.farm("one")) as session:
        farm.tracker_process.kill()
        assert nap(session, 0) == 1.0  # a session needs no tracker
        farm.tracker_process = farm.start_tracker()
        assert nap(session, 0) == 1.0
    with open_session(farm.farm("one"), patience_s=40) as session:
        assert nap(session, 0) == 1.0


def test_a_key_that_no_device_has(farm, server):
    with (
        pytest.raises(UserError, match=r"no device has the key 'there' .*there is: .*one"),
        open_session(farm.farm("there")),
    ):
        pass


def test_all_devices_busy(farm, server):
    with (
        open_session(farm.farm("one")),
        pytest.raises(WorkError, match="all 1 devices with the key 'one' stayed busy for 1 s"),
        open_session(farm.farm("one", wait_s=1.0)),
    ):
        pass


def test_an_item_whose_devices_are_all_lost_is_reported_after_the_others(farm, server):
    saved: list[float] = []

    def work(session, x):
        if x == 2.0:
            os.kill(only_child(server), signal.SIGKILL)
        return nap(session, 0, x)

    with pytest.raises(DeviceLostError):
        spread(farm.farm("one"), [1.0, 2.0], work, on_result=lambda _, y: saved.append(y))
    assert saved == [2.0]
