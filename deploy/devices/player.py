"""A device with a shell and nothing else: a program of ours is sent there, and told what to do
through its standard input (`deploy/cpu/runtime/player.c` says how)."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from deploy.devices.player_session import PlayerSession
from deploy.devices.session import CALL_LIMIT_S, DeviceLostError
from deploy.devices.shell import Shell, UnreachableError

_RETRY_S = 1.0


@dataclass(frozen=True)
class PlayerPlace:
    """One device with a shell (`deploy.devices.place.Place`)."""

    shell: Shell
    call_limit_s: float = CALL_LIMIT_S

    @property
    def name(self) -> str:
        """As `Place.name`."""
        return self.shell.name

    def count(self) -> int:
        """One."""
        return 1

    @contextmanager
    def open(self, patience_s: float = 0.0) -> Iterator[PlayerSession]:
        """As `Place.open`."""
        until = time.monotonic() + patience_s
        while True:
            try:
                session = PlayerSession(self.shell, self.call_limit_s)
                break
            except (UnreachableError, DeviceLostError):
                if time.monotonic() > until:
                    raise
            time.sleep(_RETRY_S)
        try:
            yield session
        finally:
            session.close()
