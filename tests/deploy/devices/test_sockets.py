"""A connection is known by its descriptor and its port: a number alone may be another's by now."""

import socket

import pytest

from deploy.devices.sockets import hang_up, open_sockets


@pytest.fixture
def ends():
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as near,
        listener.accept()[0] as far,
    ):
        yield near, far


def test_open_connections_are_listed(ends):
    near, far = ends
    found = dict(open_sockets())
    assert found[near.fileno()].local_port == near.getsockname()[1]
    assert found[near.fileno()].peer == far.getsockname()


def test_only_the_connection_that_is_meant_is_ended(ends):
    near, far = ends
    port = near.getsockname()[1]
    hang_up(near.fileno(), port + 1)
    near.sendall(b"x")
    assert far.recv(1) == b"x"
    hang_up(near.fileno(), port)
    assert far.recv(1) == b""
    closed = near.detach()
    socket.close(closed)
    with pytest.raises(OSError, match="Bad file descriptor"):
        hang_up(closed, port)
