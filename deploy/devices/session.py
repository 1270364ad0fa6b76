"""A session with one device behind TVM's RPC: every call has a time limit, every failure is one
line."""

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from deploy.devices.address import Address
from deploy.devices.describe import FUNCTION, SIZE_POOL, Description
from deploy.devices.sockets import hang_up, open_sockets
from deploy.devices.tracker import Grant, request, require_key
from deploy.measure.kernels import TvmModule
from lut.errors import UserError, WorkError

T = TypeVar("T")

CALL_LIMIT_S = 120.0  # of one call, an upload or a measurement; TVM itself waits for ever
CONNECT_LIMIT_S = 20.0
_CONNECT_TRIES, _RETRY_S = 3, 0.5
_MEMORY_WORDS = ("bad_alloc", "out of memory", "Out of memory", "Cannot allocate", "OutOfMemory")
_THREADS_AS_TOLD = 1  # TVM's affinity mode: the fastest cores first, one thread each


class DeviceLostError(WorkError):
    """The device is gone, or did not answer in time; another one may do the work."""


@dataclass(frozen=True)
class Farm:
    """Devices of one kind: a tracker and a key. `wait_s` is how long to wait for a free one."""

    tracker: Address
    key: str
    call_limit_s: float = CALL_LIMIT_S
    wait_s: float = 600.0

    @property
    def name(self) -> str:
        """As `Place.name`."""
        return self.key

    def count(self) -> int:
        """As `Place.count`."""
        return len(require_key(self.tracker, self.key).devices)

    def open(self, patience_s: float = 0.0) -> "AbstractContextManager[RemoteSession]":
        """As `Place.open`."""
        return open_session(self, patience_s=patience_s)


class RemoteSession:
    """A device that is ours until the session is closed; made by `open_session`."""

    def __init__(
        self,
        rpc: Any,  # noqa: ANN401
        farm: Farm,
        address: Address,
        descriptor: int,
        local_port: int,
    ) -> None:
        self.rpc, self.farm, self.name = rpc, farm, f"{farm.key} ({address})"
        self._socket, self._limit_s = (descriptor, local_port), farm.call_limit_s
        self._open = True
        self._uploads = 0

    def call(self, doing: str, work: Callable[[], T]) -> T:
        """Run `work`, which calls the device, within the time limit.

        `doing` says what it is, for the error. Raises DeviceLostError where the device does not
        answer or the connection breaks, WorkError for anything else that fails on it.
        """
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            self._hang_up()

        timer = threading.Timer(self._limit_s, expire)
        timer.daemon = True
        timer.start()
        try:
            return work()
        # TVM's errors over RPC are RuntimeErrors, and those of its sockets too.
        except (RuntimeError, OSError, ValueError, TypeError) as error:
            if isinstance(error, UserError | WorkError):
                raise
            if expired.is_set():
                raise DeviceLostError(
                    f"device {self.name} did not answer within {self._limit_s:g} s while {doing}; "
                    "it hangs or its network is down"
                ) from error
            raise self._explain(error, doing) from error
        finally:
            timer.cancel()

    def function(self, name: str) -> Callable[..., Any] | None:
        """A global function of the server; None where it has none of that name."""

        def look_up() -> Callable[..., Any] | None:
            try:
                found: Callable[..., Any] = self.rpc.get_function(name)
            except AttributeError:  # what TVM says of a server without it
                return None
            return found

        return self.call("looking up a function", look_up)

    def describe(self) -> Description | None:
        """What the device says it is; None where its server is not ours (TVM's own, a phone)."""
        function = self.function(FUNCTION)
        if function is None:
            return None
        return Description.from_json(str(self.call("describing itself", function)))

    def report(self) -> dict[str, Any]:
        """This device, for a manifest, a record or --json: who measured asks in the same session,
        for another session may get another device."""
        device = self.describe()
        unknown = "not known: the server does not say"
        return {
            "machine": device.cpu if device else unknown,
            "architecture": device.architecture if device else unknown,
            "rpc_key": self.farm.key,
            "emulated": device.emulated if device else unknown,
        }

    def upload(self, library: bytes) -> TvmModule:
        """Send a shared library and load it; raises DeviceLostError where the upload is cut off."""
        # Each under a name of its own: writing over a library that is loaded crashes the session.
        self._uploads += 1
        name = f"library{self._uploads}.so"
        data = bytearray(library)
        self.call(f"uploading {len(data) / 1e6:.1f} MB", lambda: self.rpc.upload(data, name))
        module = self.call("loading the library", lambda: self.rpc.load_module(name))
        # Loaded, it needs no file: a long measurement would fill the device's disk.
        remove = self.function("tvm.rpc.server.remove")
        if remove is not None:
            self.call("removing the upload", lambda: remove(name))
        return TvmModule(module, self.rpc.cpu())

    def tensor(self, array: NDArray[Any]) -> Any:  # noqa: ANN401 - of TVM's
        """As `Machine.tensor`."""
        import tvm

        data = np.ascontiguousarray(array)
        return self.call(
            f"sending {data.nbytes / 1e6:.1f} MB",
            lambda: tvm.runtime.tensor(data, device=self.rpc.cpu()),
        )

    def empty(self, shape: Sequence[int], dtype: str) -> Any:  # noqa: ANN401 - of TVM's
        """As `Machine.empty`."""
        import tvm

        return self.call(
            "taking memory", lambda: tvm.runtime.empty(tuple(shape), dtype, self.rpc.cpu())
        )

    def read(self, tensor: Any) -> NDArray[Any]:  # noqa: ANN401 - of TVM's
        """As `Machine.read`."""
        found: NDArray[Any] = self.call("fetching the result", tensor.numpy)
        return found

    def set_threads(self, threads: int) -> str:
        """The size of the device's pool of threads, for this session; how they are bound."""
        size_pool = self.function(SIZE_POOL)
        if size_pool is not None:
            return str(self.call("setting threads", lambda: size_pool(threads)))
        configure = self.function("runtime.config_threadpool")
        if configure is None:
            raise WorkError(f"device {self.name}: its server cannot set the number of threads")
        self.call("setting threads", lambda: configure(_THREADS_AS_TOLD, threads))
        return "TVM's pool, one thread a core, the fastest cores first"

    def close(self) -> None:
        """Give the device back."""
        self.rpc = None
        self._hang_up()

    def _hang_up(self) -> None:
        if self._open:
            self._open = False
            with suppress(OSError):
                hang_up(*self._socket)

    def _explain(self, error: Exception, doing: str) -> WorkError:
        text = str(error).strip()
        line = (text.splitlines() or [type(error).__name__])[-1][:300]
        if any(word in text for word in _MEMORY_WORDS):
            return WorkError(
                f"device {self.name} ran out of memory while {doing}; choose a smaller resolution, "
                "or end other programs there"
            )
        # TVM got the end of the connection where an answer was due, or its socket failed.
        if "RPCCode::kReturn" in text or "Sock" in text or isinstance(error, OSError):
            return DeviceLostError(
                f"the connection to device {self.name} broke while {doing}: the server there was "
                "ended, crashed or lost its network (out of memory, perhaps)"
            )
        return WorkError(f"device {self.name} failed while {doing}: {line}")


@contextmanager
def open_session(farm: Farm, *, patience_s: float = 0.0) -> Iterator[RemoteSession]:
    """Take a free device; it is given back when the block ends, however it ends.

    `patience_s` is how long to go on trying where there is no tracker or no such key: a server or a
    tracker that was restarted registers again within seconds. Raises UserError where there is none,
    WorkError where all are busy or the device that the tracker names cannot be reached.
    """
    session = _connect(farm, patience_s)
    try:
        yield session
    finally:
        session.close()


def _connect(farm: Farm, patience_s: float) -> RemoteSession:
    until = time.monotonic() + patience_s
    tries = 0
    while True:
        try:
            return _connect_to(request(farm.tracker, farm.key, wait_s=farm.wait_s), farm)
        except DeviceLostError:  # a server that was just killed may still be listed
            tries += 1
            if tries >= _CONNECT_TRIES and time.monotonic() > until:
                raise
        except (UserError, WorkError):
            if time.monotonic() > until:
                raise
        time.sleep(_RETRY_S)


def _connect_to(grant: Grant, farm: Farm) -> RemoteSession:
    from tvm import rpc

    host, port = grant.address
    # A number alone says little: another thread may close a connection, and ours get its number.
    before = {(number, ends.local_port) for number, ends in open_sockets()}

    def to_device() -> list[tuple[int, int]]:
        addresses = {found[4][:2] for found in socket.getaddrinfo(host, port)}
        found = [(n, ends.local_port) for n, ends in open_sockets() if ends.peer in addresses]
        return [end for end in found if end not in before]

    def expire() -> None:
        for end in to_device():
            with suppress(OSError):
                hang_up(*end)

    timer = threading.Timer(CONNECT_LIMIT_S, expire)
    timer.daemon = True
    timer.start()
    try:
        connected = rpc.connect(host, port, grant.match_key)
    except (RuntimeError, OSError) as error:
        line = (str(error).strip().splitlines() or ["no answer"])[-1][:200]
        raise DeviceLostError(
            f"device {farm.key} at {grant.address} cannot be reached ({line}); if the tracker is "
            "on another machine, is this address right from here?"
        ) from error
    finally:
        timer.cancel()
    mine = to_device()
    if not mine:
        raise DeviceLostError(f"device {farm.key} at {grant.address} closed the connection")
    return RemoteSession(connected, farm, grant.address, *mine[-1])
