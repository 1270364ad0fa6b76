"""TVM's tracker: running one, and asking one for devices.

What a tracker is asked is written here, not imported: TVM takes seconds to import, and most who ask
wait for nothing else.
"""

import json
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from deploy.devices.address import Address
from lut.errors import HmsegError, UserError, WorkError
from lut.json_text import parse_json

_ANSWER_S = 10.0  # a tracker does nothing but answer
_MOST_BYTES = 16 << 20  # of an answer
_SILENT_S, _LOOK_MS = 3.5, 500
# As in tvm.rpc.base. A message is JSON behind its length; what is asked and answered has numbers.
_MAGIC = 0x2F271
_SUCCESS, _REQUEST, _SUMMARY = 0, 4, 6


@dataclass(frozen=True)
class KeyState:
    """The devices behind one key."""

    key: str
    devices: tuple[str, ...]  # addresses
    free: int
    waiting: int  # requests


@dataclass(frozen=True)
class Grant:
    """A device that the tracker has given us, until the connection to it ends."""

    address: Address
    match_key: str


def run_tracker(address: Address, on_port: Callable[[Address], None] = lambda _: None) -> None:
    """Run TVM's tracker in this process until it is ended.

    `on_port` is told the address in use. Raises UserError where the port is taken: whoever asks for
    a tracker there would ask another.
    """
    import asyncio

    from tornado.ioloop import PeriodicCallback
    from tvm.rpc.tracker import TrackerServerHandler

    listener = _listen(address)
    on_port(Address(address.host, listener.getsockname()[1]))
    asyncio.set_event_loop(asyncio.new_event_loop())
    # The stop key lets whoever knows it end a tracker over the network: ours ends by a signal.
    tracker = TrackerServerHandler(listener, os.urandom(16).hex())
    since: dict[Any, float] = {}
    PeriodicCallback(lambda: _drop_silent(tracker, since), _LOOK_MS).start()
    tracker.run()


def _drop_silent(tracker: Any, since: dict[Any, float]) -> None:  # noqa: ANN401 - TVM's
    """End connections that do not say within `_SILENT_S` that they want a tracker: each holds one
    of the files that a process may have open. `since` says since when each is waited for."""
    now = time.monotonic()
    waiting = {each for each in tracker._connections if each._init_req_nbytes}
    for known in since.keys() - waiting:
        del since[known]
    for connection in waiting:
        if now - since.setdefault(connection, now) > _SILENT_S:
            connection.close()


def _listen(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(tuple(address))
        listener.listen()
    except OSError as error:
        listener.close()
        raise UserError(
            f"the tracker cannot listen at {address} ({error.strerror or error}); choose another "
            "with --port"
        ) from error
    return listener


def states(tracker: Address) -> list[KeyState]:
    """Every key that the tracker knows, by name; raises UserError where no tracker answers."""
    with _connection(tracker) as ask:
        code, summary = ask([_SUMMARY])
        if code != _SUCCESS:
            raise WorkError(f"the tracker at {tracker} refused to list its devices")
        return _states(summary)


def _states(summary: Any) -> list[KeyState]:  # noqa: ANN401 - JSON
    devices: dict[str, list[str]] = {}
    for server in summary["server_info"]:
        host, port = server["addr"]
        devices.setdefault(server["key"].removeprefix("server:"), []).append(f"{host}:{port}")
    queues = summary["queue_info"]
    return [
        KeyState(
            key,
            tuple(sorted(devices.get(key, ()))),
            int(queues.get(key, {}).get("free", 0)),
            int(queues.get(key, {}).get("pending", 0)),
        )
        for key in sorted(devices.keys() | queues.keys())
        if devices.get(key) or queues[key]["pending"]
    ]


def require_key(tracker: Address, key: str) -> KeyState:
    """The state of a key behind which there is a device; raises UserError naming the others."""
    known = [state for state in states(tracker) if state.devices]
    for state in known:
        if state.key == key:
            return state
    others = ", ".join(state.key for state in known)
    raise UserError(
        f"no device has the key {key!r} at the tracker {tracker}; "
        + (f"there is: {others}" if others else "none is registered; start one with")
        + ("" if others else f" hmseg-deploy device serve --rpc-tracker {tracker} --rpc-key {key}")
    )


def request(tracker: Address, key: str, *, wait_s: float) -> Grant:
    """Ask for a free device and wait for it at most `wait_s` seconds.

    Raises UserError for a key without devices, WorkError where all stay busy.
    """
    state = require_key(tracker, key)
    with _connection(tracker, answer_s=wait_s) as ask:
        try:
            _, (host, port, match_key) = ask([_REQUEST, key, "", 1])
        except TimeoutError:
            raise WorkError(
                f"all {len(state.devices)} devices with the key {key!r} stayed busy for "
                f"{wait_s:g} s; see hmseg-deploy device list"
            ) from None
    return Grant(Address(host, port), match_key)


@contextmanager
def _connection(
    tracker: Address, answer_s: float = _ANSWER_S
) -> Iterator[Callable[[list[Any]], Any]]:
    """A connection that sends a message and returns the answer; closed when the block ends."""
    try:
        connection = socket.create_connection(tracker, timeout=_ANSWER_S)
    except OSError as error:
        raise UserError(
            f"no tracker answers at {tracker} ({error.strerror or error}); start one with "
            "hmseg-deploy device tracker, or correct --rpc-tracker"
        ) from error

    def ask(message: list[Any]) -> Any:  # noqa: ANN401 - JSON
        connection.settimeout(answer_s)
        data = json.dumps(message).encode()
        connection.sendall(struct.pack("<i", len(data)) + data)
        (size,) = struct.unpack("<i", _receive(connection, 4))
        if not 0 < size <= _MOST_BYTES:
            raise UserError(f"what answers at {tracker} is not a TVM tracker")
        return parse_json(_receive(connection, size))

    with connection:
        try:
            connection.sendall(struct.pack("<i", _MAGIC))
            if struct.unpack("<i", _receive(connection, 4))[0] != _MAGIC:
                raise UserError(f"what answers at {tracker} is not a TVM tracker")
            yield ask
        except HmsegError:
            raise
        except (TimeoutError, KeyError, TypeError, AttributeError) as error:  # other answers
            raise UserError(f"what answers at {tracker} is not a TVM tracker") from error
        except (OSError, ValueError, struct.error) as error:
            raise WorkError(f"the tracker at {tracker} broke off ({error}); try again") from error


def _receive(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = connection.recv(min(size - len(data), 1 << 16))
        if not part:
            raise ConnectionError("the connection ended")
        data += part
    return bytes(data)
