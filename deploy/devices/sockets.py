"""The TCP connections of this process, which TVM's C++ code opens and gives no handle of."""

import os
import socket
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Connection:
    """The two ends of a TCP connection."""

    local_port: int
    peer: tuple[str, int]


def open_sockets() -> Iterator[tuple[int, Connection]]:
    """File descriptors and ends of the TCP connections that this process has open."""
    for entry in list(Path("/proc/self/fd").iterdir()):
        number = int(entry.name)
        try:
            if not stat.S_ISSOCK(os.fstat(number).st_mode):
                continue
            copy = socket.socket(fileno=os.dup(number))
        except OSError:  # closed since it was listed
            continue
        with copy:
            try:
                local, peer = copy.getsockname(), copy.getpeername()
            except OSError:  # listening, or closed by the other side
                continue
            if copy.family in (socket.AF_INET, socket.AF_INET6):
                yield number, Connection(local[1], (peer[0], peer[1]))


def hang_up(descriptor: int, local_port: int) -> None:
    """End a connection for both sides: a call that waits for its answer returns with an error.

    Nothing happens where the descriptor is another connection's by now. Raises OSError where it is
    closed.
    """
    with socket.socket(fileno=os.dup(descriptor)) as copy:
        if copy.getsockname()[1] == local_port:
            copy.shutdown(socket.SHUT_RDWR)
