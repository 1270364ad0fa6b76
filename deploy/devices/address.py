"""HOST:PORT, as TVM's tools write it."""

from typing import NamedTuple

from lut.errors import UserError

LOOPBACK = "127.0.0.1"
TRACKER_PORT = 9190  # TVM's default


class Address(NamedTuple):
    """Where something listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host in ("localhost", "::1") or self.host.startswith("127.")


def parse_address(text: str) -> Address:
    """HOST:PORT, or HOST for the tracker's usual port; raises UserError for anything else."""
    host, colon, port = text.rpartition(":")
    if not colon:
        host, port = port, str(TRACKER_PORT)
    if not host or not (port.isascii() and port.isdecimal() and 0 < int(port) < 65536):
        raise UserError(f"{text!r}: write HOST:PORT, such as {LOOPBACK}:{TRACKER_PORT}")
    return Address(host, int(port))
