"""The conversation with the program on a device: requests, answers, and why there is none."""

import math
import subprocess
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import PurePosixPath
from typing import TypeVar

from deploy.devices.player_sending import run_command
from deploy.devices.session import DeviceLostError
from deploy.devices.shell import MARK, Shell, UnreachableError, last_line
from lut.errors import HmsegError, UserError, WorkError

T = TypeVar("T")

# Between two requests: a link that breaks without a word leaves no program there for longer.
IDLE_S = 3600
_MORE_S = 5.0  # than the program's own limit, until it is taken for lost
_ALONE = 3  # the program's code after that time (`player.c`)
_SIGNAL = 128  # a shell's code for a program that a signal ended is this and the signal
_EXPIRED = _SIGNAL + 14
_ENDED = {
    _ALONE: f"nothing was asked of it for {IDLE_S} s",
    _SIGNAL + 9: "the system ended the program there, for want of memory perhaps",
    _SIGNAL + 11: "the program there crashed",
    _SIGNAL + 4: "its CPU does not know an instruction",
}


class Link:
    """The program that `deploy.devices.player_sending.send` put into a folder there, running.

    Raises UserError where the command that reaches the device cannot be run here.
    """

    def __init__(self, shell: Shell, folder: str, limit_s: float) -> None:
        self._shell, self._folder, self._limit_s = shell, folder, limit_s
        self._doing, self._expired = "starting", threading.Event()
        command = run_command(shell, folder, math.ceil(limit_s), IDLE_S)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the link
        try:
            self.program = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors
            )
        except OSError as error:
            self._errors.close()
            raise UserError(f"cannot run {command[0]}: {error.strerror}") from error

    def call(self, doing: str, work: Callable[[], T]) -> T:
        """As `RemoteSession.call`."""
        self._doing = doing
        self._expired.clear()

        def expire() -> None:
            self._expired.set()
            self.program.kill()

        timer = threading.Timer(self._limit_s + _MORE_S, expire)
        timer.daemon = True
        timer.start()
        try:
            return work()
        finally:
            timer.cancel()

    def begin(self) -> None:
        """Wait until the program is started, past what the login's own files print. Raises as
        `exchange`."""
        answers = self.program.stdout
        assert answers is not None
        line = b" "
        while line and not line.endswith(f"{MARK}\n".encode()):
            line = answers.readline()
        if not line:
            raise self._lost()

    def exchange(self, line: str, given: bytes | memoryview = b"") -> bytes:
        """The answer to a request. Raises DeviceLostError where none comes, WorkError or UserError
        where the request fails there."""
        to, answers = self.program.stdin, self.program.stdout
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

    def close(self) -> None:
        """End the program, and wait until its folder is gone."""
        with suppress(OSError, ValueError):
            if self.program.stdin:
                self.program.stdin.close()
        try:
            self.program.wait(_MORE_S)
        except subprocess.TimeoutExpired:
            self.program.kill()
            self.program.wait()
        if self.program.stdout:
            self.program.stdout.close()
        self._errors.close()

    def _failure(self, text: str) -> HmsegError:
        what = f"device {self._shell.name} failed while {self._doing}: {text}"
        if "No space left" in text:
            return UserError(f"{what}; free some room there")
        if "enough memory" in text:
            return WorkError(f"{what}; choose a smaller resolution, or end other programs there")
        return WorkError(what)

    def _lost(self) -> HmsegError:
        code, name = self._code(), self._shell.name
        self._errors.seek(0)
        text = self._errors.read().decode(errors="replace")
        said = last_line(text, "")
        if refused := self._shell.refusal(code, text):
            again = isinstance(refused, UnreachableError)
            return DeviceLostError(f"{refused} (it was {self._doing})") if again else refused
        if code in (126, 127):  # it could not be run at all
            return UserError(
                f"device {name} does not run programs in {PurePosixPath(self._folder).parent} "
                f"({said}); {self._shell.cure}"
            )
        why = _ENDED.get(code, said or "the connection broke")
        if code == _EXPIRED:
            why = f"it did not answer within {self._limit_s:g} s"
        return DeviceLostError(f"device {name} was lost while {self._doing}: {why}")

    def _code(self) -> int:
        """With which the command here ended; it is ended where it does not by itself."""
        if self._expired.is_set():
            return _EXPIRED
        try:
            return self.program.wait(_MORE_S)
        except subprocess.TimeoutExpired:
            self.program.kill()
            return 0
