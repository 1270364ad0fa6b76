"""Devices that are played: sessions without a network between, which say what they are told to say.
test_faults.py and test_network.py have real ones."""

import queue
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import pytest

from deploy.devices import session as sessions
from deploy.devices.address import LOOPBACK, Address
from deploy.devices.describe import Description
from deploy.devices.session import DeviceLostError, Farm, RemoteSession
from lut.errors import WorkError

BOARD = Description("0", "x86_64", "A board", 2, ("avx2",), 1000, (), (), emulated=False)


class Session(RemoteSession):
    """A session with a device; `alive` is what becomes of it."""

    def __init__(self, farm: Farm, name: str, description: Description | None) -> None:
        self.farm, self.name, self.description, self.alive = farm, name, description, True

    def describe(self) -> Description | None:
        return self.description

    def set_threads(self, threads: int) -> str:
        return f"{threads} threads"

    def call(self, doing: str, work: Any) -> Any:
        if not self.alive:
            raise DeviceLostError(f"the connection to device {self.name} broke while {doing}")
        return work()

    def lose(self) -> DeviceLostError:
        """It is gone, and no tracker names it any more."""
        self.alive = False
        return DeviceLostError(f"the connection to device {self.name} broke")


@dataclass
class Played:
    """The devices behind a key, by name; `free` are those that nobody has."""

    devices: dict[str, Description | None]

    def __post_init__(self) -> None:
        self.free: queue.Queue[str] = queue.Queue()
        for name in self.devices:
            self.free.put(name)
        self.sessions: list[Session] = []
        self.farm = Farm(Address(LOOPBACK, 1), "key", wait_s=0.2)

    @contextmanager
    def open_session(self, farm: Farm, *, patience_s: float = 0.0) -> Iterator[Session]:
        """As `deploy.devices.session.open_session`."""
        del patience_s
        try:
            name = self.free.get(timeout=farm.wait_s)
        except queue.Empty:
            raise WorkError(f"all devices stayed busy for {farm.wait_s:g} s") from None
        session = Session(farm, name, self.devices[name])
        self.sessions.append(session)
        try:
            yield session
        finally:
            if session.alive:
                self.free.put(name)

    def use(self, patch: pytest.MonkeyPatch) -> "Played":
        """Work is spread over them."""
        patch.setattr(sessions, "open_session", self.open_session)
        key = SimpleNamespace(devices=tuple(self.devices))
        patch.setattr(sessions, "require_key", lambda *_: key)
        return self


def boards(patch: pytest.MonkeyPatch, *names: str, **changes: dict[str, Any]) -> Played:
    """Of these names, all alike; `changes` of what one of them says."""
    found = {name: replace(BOARD, **changes.get(name, {})) for name in names}
    return Played(found).use(patch)
