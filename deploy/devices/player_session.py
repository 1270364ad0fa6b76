"""A session with the program of ours on a device: its libraries, its tensors, what it is."""

import weakref
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from deploy import host
from deploy.devices.describe import Description, available_mib
from deploy.devices.player_link import Link
from deploy.devices.player_sending import remove, send
from deploy.devices.shell import Shell
from lut.errors import HmsegError, WorkError

T = TypeVar("T")

_PINNING = "a pool of our own, its threads not bound to CPUs"
_DLPACK = {"u": 1, "i": 0, "f": 2, "b": 6}  # numbers of types, by numpy's letters
_MOST_NUMBERS = 4096  # `player.c`


class PlayerTensor:
    """Memory of a tensor there; let go when nobody has it any more."""

    def __init__(self, number: int, shape: Sequence[int], dtype: Any) -> None:  # noqa: ANN401
        self.number, self.shape, self.dtype = number, tuple(shape), np.dtype(dtype)


class PlayerModule:
    """A library that is loaded there (`deploy.measure.kernels.Module`)."""

    def __init__(self, session: "PlayerSession", number: int) -> None:
        self._session, self._number = session, number

    def call(self, name: str, *arguments: Any) -> None:  # noqa: ANN401
        """As `Module.call`."""
        self._session.ask(f"call {self._number} {name}{_words(arguments)}")

    def time(self, name: str, arguments: Sequence[Any], calls: int) -> list[int]:
        """As `Module.time`."""
        found = self._session.ask(f"time {self._number} {name} {calls}{_words(arguments)}")
        times: list[int] = np.frombuffer(found, np.int64).tolist()
        return times


class PlayerSession:
    """The program, running on a device (`deploy.devices.place.DeviceSession`).

    Its folder there is gone when it has ended, however it ended. Raises UserError where the device
    cannot be reached, is of another architecture, has no room or does not let programs run.
    """

    def __init__(self, shell: Shell, limit_s: float) -> None:
        self.name, self._board = shell.name, shell.board
        self._let_go: deque[tuple[str, int]] = deque()  # what has gone here and not yet there
        self._numbers = {"free": deque(range(_MOST_NUMBERS)), "unload": deque(range(_MOST_NUMBERS))}
        with ExitStack() as undo:
            folder = send(shell)
            undo.callback(remove, shell, folder)
            self.link = Link(shell, folder, limit_s)
            undo.callback(self.link.close)
            self.call("starting", self.link.begin)
            about = self.call("starting", lambda: self.ask("about")).decode()
            self.about = dict(line.split(maxsplit=1) for line in about.splitlines())
            undo.pop_all()

    def call(self, doing: str, work: Callable[[], T]) -> T:
        """As `RemoteSession.call`."""
        return self.link.call(doing, work)

    def ask(self, line: str, given: bytes | memoryview = b"") -> bytes:
        """The answer to a request. Raises as `call` says."""
        while self._let_go:
            verb, number = self._let_go.popleft()
            self.link.exchange(f"{verb} {number}")
            self._numbers[verb].append(number)
        return self.link.exchange(line, given)

    def describe(self) -> Description:
        """What the device's own files say."""
        return self._description

    @cached_property
    def _description(self) -> Description:
        def file(path: str) -> str:
            return self.call(f"reading {path}", lambda: self.ask(f"file {path}")).decode(
                errors="replace"
            )

        about, cpuinfo = self.about, file("/proc/cpuinfo")
        architecture = about["architecture"]
        words = {16: int(about["hwcap"]), 26: int(about["hwcap2"])}
        flags = (
            host.hwcap_flags(words) if architecture == "aarch64" else host.cpuinfo_flags(cpuinfo)
        )
        board = self._board or file(host.BOARD)
        policies = [f"/sys/devices/system/cpu/cpu{n}/cpufreq" for n in range(int(about["cores"]))]
        maxima = [file(f"{policy}/cpuinfo_max_freq").strip() for policy in policies]
        governors = {file(f"{policy}/scaling_governor").strip() for policy in policies}
        return Description(
            tvm_version=None,
            architecture=architecture,
            cpu=host.model_of(architecture, cpuinfo, board),
            cores=int(about["cores"]),
            flags=tuple(sorted(flags)),
            available_mib=available_mib(file("/proc/meminfo")),
            governors=tuple(sorted(governors - {""})),
            max_mhz=tuple(sorted({int(khz) // 1000 for khz in maxima if khz.isdecimal()})),
            emulated=about["emulated"] == "1",
        )

    def report(self) -> dict[str, Any]:
        """As `DeviceSession.report`."""
        device = self.describe()
        return {
            "machine": device.cpu,
            "architecture": device.architecture,
            "device": self.name,
            "emulated": device.emulated,
        }

    def upload(self, library: bytes) -> PlayerModule:
        """As `DeviceSession.upload`."""
        doing = f"uploading {len(library) / 1e6:.1f} MB"
        number = self._numbered("unload", doing, f"library {{}} {len(library)}", library)
        module = PlayerModule(self, number)
        weakref.finalize(module, self._let_go.append, ("unload", number)).atexit = False
        return module

    def set_threads(self, threads: int) -> str:
        """As `DeviceSession.set_threads`."""
        self.call("setting threads", lambda: self.ask(f"threads {threads}"))
        return _PINNING

    def tensor(self, array: NDArray[Any]) -> PlayerTensor:
        """As `Machine.tensor`."""
        data = np.ascontiguousarray(array)
        made = self.empty(data.shape, data.dtype.name)
        bytes_ = data.reshape(-1).view(np.uint8).data
        self.call(
            f"sending {data.nbytes / 1e6:.1f} MB",
            lambda: self.ask(f"write {made.number} {data.nbytes}", bytes_),
        )
        return made

    def empty(self, shape: Sequence[int], dtype: str) -> PlayerTensor:
        """As `Machine.empty`."""
        kind = np.dtype(dtype)
        what = f"{_DLPACK[kind.kind]} {kind.itemsize * 8} {' '.join(map(str, shape))}"
        number = self._numbered("free", "taking memory", f"tensor {{}} {what}")
        made = PlayerTensor(number, shape, kind)
        weakref.finalize(made, self._let_go.append, ("free", number)).atexit = False
        return made

    def read(self, tensor: PlayerTensor) -> NDArray[Any]:
        """As `Machine.read`."""
        data = self.call("fetching the result", lambda: self.ask(f"read {tensor.number}"))
        return np.frombuffer(bytearray(data), tensor.dtype).reshape(tensor.shape)

    def close(self) -> None:
        """End the program, and wait until its folder is gone."""
        self.link.close()

    def _numbered(self, verb: str, doing: str, line: str, given: bytes = b"") -> int:
        """The number of the tensor or library that a request makes, which stands in it for {};
        `verb` lets it go."""
        numbers = self._numbers[verb]
        if not numbers:
            raise WorkError(f"device {self.name}: too many tensors or libraries at once")
        number = numbers.popleft()
        try:
            self.call(doing, lambda: self.ask(line.format(number), given))
        except HmsegError:
            numbers.append(number)
            raise
        return number


def _words(arguments: Sequence[Any]) -> str:
    return "".join(
        f" t{given.number}" if isinstance(given, PlayerTensor) else f" i{int(given)}"
        for given in arguments
    )
