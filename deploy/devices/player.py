"""A device with a shell and nothing else: a program of ours is sent there, and told what to do
through its standard input (`deploy/cpu/runtime/player.c` says how)."""

import math
import subprocess
import tempfile
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from deploy import host
from deploy.devices.describe import Description, available_mib
from deploy.devices.player_program import ARCHITECTURES, player_program
from deploy.devices.session import CALL_LIMIT_S, DeviceLostError
from deploy.devices.shell import Shell, last_line, run_script
from lut.errors import HmsegError, UserError, WorkError

T = TypeVar("T")

_PINNING = "a pool of our own, its threads not bound to CPUs"
_RETRY_S = 1.0
_MORE_S = 5.0  # than the program's own limit, until it is taken for lost
_DLPACK = {"u": 1, "i": 0, "f": 2}  # numbers of types, by numpy's letters
_MOST_NUMBERS = 4096  # `player.c`
_SIGNAL = 128  # a shell's code for a program that a signal ended is this and the signal
_ENDED = {
    9: "the system ended the program there, for want of memory perhaps",
    14: "it did not end within its time",
    11: "the program there crashed",
    4: "its CPU does not know an instruction",
}


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
    def open(self, patience_s: float = 0.0) -> "Iterator[PlayerSession]":
        """As `Place.open`."""
        until = time.monotonic() + patience_s
        while True:
            try:
                session = PlayerSession(self.shell, self.call_limit_s)
                break
            except HmsegError:
                if time.monotonic() > until:
                    raise
            time.sleep(_RETRY_S)
        try:
            yield session
        finally:
            session.close()


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
        self.name, self._shell, self._limit_s = shell.name, shell, limit_s
        self._doing, self._expired = "starting", threading.Event()
        self._let_go: deque[tuple[str, int]] = deque()  # what has gone here and not yet there
        self._numbers = {"free": deque(range(_MOST_NUMBERS)), "unload": deque(range(_MOST_NUMBERS))}
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the session
        self._program = self._start(_send(shell))
        self.about = dict(
            line.split(maxsplit=1)
            for line in self.call("starting", lambda: self.ask("about")).decode().splitlines()
        )

    def _start(self, folder: str) -> "subprocess.Popen[bytes]":
        program = f"{self._shell.runner} {folder}/player {folder} {math.ceil(self._limit_s)}"
        # Without a connection the program's input ends, and so does it; the shell is to outlive it.
        script = f"trap '' HUP; {program}; code=$?; rm -rf {folder}; exit $code"
        return subprocess.Popen(
            self._shell.command(script), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self._errors,
        )  # fmt: skip

    def call(self, doing: str, work: Callable[[], T]) -> T:
        """As `RemoteSession.call`."""
        self._doing = doing
        self._expired.clear()

        def expire() -> None:
            self._expired.set()
            self._program.kill()

        timer = threading.Timer(self._limit_s + _MORE_S, expire)
        timer.daemon = True
        timer.start()
        try:
            return work()
        finally:
            timer.cancel()

    def ask(self, line: str, given: bytes | memoryview = b"") -> bytes:
        """The answer to a request. Raises as `call` says."""
        while self._let_go:
            verb, number = self._let_go.popleft()
            self._exchange(f"{verb} {number}", b"")
            self._numbers[verb].append(number)
        return self._exchange(line, given)

    def _exchange(self, line: str, given: bytes | memoryview) -> bytes:
        to, answers = self._program.stdin, self._program.stdout
        assert to is not None
        assert answers is not None
        try:
            to.write(line.encode() + b"\n")
            to.write(given)
            to.flush()
            head = answers.readline().decode(errors="replace").rstrip("\n")
            kind, _, rest = head.partition(" ")
            data = answers.read(int(rest)) if kind == "ok" else b""
        except (OSError, ValueError):  # a closed pipe, or what is no answer
            kind, rest, data = "", "", b""
        if kind == "error":
            raise self._failure(rest)
        if kind != "ok" or len(data) != int(rest):
            raise self._lost()
        return data

    def _failure(self, text: str) -> HmsegError:
        what = f"device {self.name} failed while {self._doing}: {text}"
        if "No space left" in text:
            return UserError(f"{what}; free some room there")
        if "enough memory" in text:
            return WorkError(f"{what}; choose a smaller resolution, or end other programs there")
        return WorkError(what)

    def _lost(self) -> HmsegError:
        if self._expired.is_set():
            code = _SIGNAL + 14
        else:
            try:
                code = self._program.wait(_MORE_S)
            except subprocess.TimeoutExpired:
                self._program.kill()
                code = 0
        self._errors.seek(0)
        text = self._errors.read().decode(errors="replace")
        said = last_line(text, "")
        if refused := self._shell.refusal(code, text):
            return DeviceLostError(f"{refused} (it was {self._doing})")
        if code in (126, 127):  # it could not be run at all
            return UserError(
                f"device {self.name} does not run programs in {self._shell.base} ({said}); name "
                "another folder in TMPDIR there"
            )
        why = _ENDED.get(code - _SIGNAL, said or "the connection broke")
        if code == _SIGNAL + 14:
            why = f"it did not answer within {self._limit_s:g} s"
        return DeviceLostError(f"device {self.name} was lost while {self._doing}: {why}")

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
        board = self._shell.board or file(host.BOARD)
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
        number = self._take("unload")
        self.call(
            f"uploading {len(library) / 1e6:.1f} MB",
            lambda: self.ask(f"library {number} {len(library)}", library),
        )
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
        kind, number = np.dtype(dtype), self._take("free")
        sizes = " ".join(map(str, shape))
        line = f"tensor {number} {_DLPACK[kind.kind]} {kind.itemsize * 8} {sizes}"
        self.call("taking memory", lambda: self.ask(line))
        made = PlayerTensor(number, shape, kind)
        weakref.finalize(made, self._let_go.append, ("free", number)).atexit = False
        return made

    def read(self, tensor: PlayerTensor) -> NDArray[Any]:
        """As `Machine.read`."""
        data = self.call("fetching the result", lambda: self.ask(f"read {tensor.number}"))
        return np.frombuffer(bytearray(data), tensor.dtype).reshape(tensor.shape)

    def close(self) -> None:
        """End the program, and wait until its folder is gone."""
        with suppress(OSError, ValueError):
            if self._program.stdin:
                self._program.stdin.close()
        try:
            self._program.wait(_MORE_S)
        except subprocess.TimeoutExpired:
            self._program.kill()
            self._program.wait()
        if self._program.stdout:
            self._program.stdout.close()
        self._errors.close()

    def _take(self, verb: str) -> int:
        """A number for a tensor or a library."""
        numbers = self._numbers[verb]
        if not numbers:
            raise WorkError(f"device {self.name}: too many tensors or libraries at once")
        return numbers.popleft()


def _send(shell: Shell) -> str:
    """The folder there that the program lies in, ready to run."""
    lines = run_script(
        shell, f"uname -m && mktemp -d {shell.base}/hmseg-XXXXXX"
    ).splitlines()[-2:]  # fmt: skip
    if len(lines) != 2:
        raise WorkError(f"{shell.name} does not answer as a Linux does: {' '.join(lines)[:100]!r}")
    architecture, folder = lines[0].strip().replace("arm64", "aarch64"), lines[1].strip()
    try:
        if architecture not in ARCHITECTURES:
            raise UserError(
                f"{shell.name} is {architecture}; this version compiles for "
                f"{' and '.join(ARCHITECTURES)}"
            )
        program = player_program(architecture)
        run_script(shell, f"cat > {folder}/player && chmod 700 {folder}/player", program)
    except WorkError as error:
        _remove(shell, folder)
        if "No space left" in str(error):
            raise UserError(f"{error}; free some room there") from error
        raise
    except BaseException:
        _remove(shell, folder)
        raise
    return folder


def _remove(shell: Shell, folder: str) -> None:
    with suppress(HmsegError):  # the device may be gone
        run_script(shell, f"rm -rf {folder}")


def _words(arguments: Sequence[Any]) -> str:
    return "".join(
        f" t{given.number}" if isinstance(given, PlayerTensor) else f" i{int(given)}"
        for given in arguments
    )
