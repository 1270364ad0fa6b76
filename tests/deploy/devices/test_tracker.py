"""What a tracker is asked; tests/deploy/devices/test_network.py asks a real one."""

import json
import socket
import struct
from threading import Thread

import pytest
from tvm.rpc import base

from deploy.devices import tracker
from deploy.devices.address import Address
from lut.errors import UserError


def test_the_numbers_are_those_of_tvm():
    assert base.RPC_TRACKER_MAGIC == tracker._MAGIC
    codes = base.TrackerCode
    assert (tracker._SUCCESS, tracker._REQUEST, tracker._SUMMARY) == (
        codes.SUCCESS, codes.REQUEST, codes.SUMMARY,
    )  # fmt: skip


def answer_once(listener: socket.socket, message: bytes) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.recv(4)
        connection.sendall(struct.pack("<i", base.RPC_TRACKER_MAGIC))
        connection.recv(1 << 10)
        connection.sendall(message)


def sent(data: bytes) -> bytes:
    return struct.pack("<i", len(data)) + data


@pytest.mark.parametrize(
    "message",
    [
        struct.pack("<i", 1 << 30),
        struct.pack("<i", -1),
        sent(b"5"),
        sent(b"[" * 100_000),
        *(
            sent(json.dumps([0, summary]).encode())
            for summary in (5, {}, {"server_info": [1]}, {"server_info": [], "queue_info": []})
        ),
    ],
    ids=lambda message: repr(message[:12]),
)
def test_what_only_begins_as_a_tracker(message):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Thread(target=answer_once, args=(listener, message))
        server.start()
        with pytest.raises(UserError):
            tracker.states(Address(*listener.getsockname()))
        server.join()
