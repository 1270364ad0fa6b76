"""A machine behind OpenSSH's client, with whatever the user's configuration says of it."""

import re
import shlex
import shutil
from dataclasses import dataclass

from deploy.devices.shell import UnreachableError, last_line
from lut.errors import HmsegError, UserError

# Nobody is asked for a password; a host that is gone is noticed.
_OPTIONS = (
    "-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-o", "LogLevel=ERROR",
    "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=4",
)  # fmt: skip
_WORD = r"[^\s:@-][^\s:@]*"  # never an option of ssh
_ADDRESS = re.compile(rf"(?P<host>({_WORD}@)?{_WORD})(:(?P<port>[0-9]+))?")
_FAILED = 255  # ssh itself; every other code is the script's
_FORBIDDEN = (
    ("Permission denied", "put your key there (ssh-copy-id) or into ssh-agent"),
    ("Host key verification failed", "connect once by hand and accept its key"),
)
_CURES = (
    ("Could not resolve", "is the name right?"),
    ("refused", "is an ssh server running there, at this port?"),
    ("timed out", "is it on, and in this network?"),
    ("No route", "is it on, and in this network?"),
)


@dataclass(frozen=True)
class SshShell:
    """`deploy.devices.shell.Shell`; `host` is HOST, USER@HOST or a name of ssh's configuration."""

    host: str
    port: int | None = None
    base: str = '"${TMPDIR:-/tmp}"'
    target: str | None = None
    board: str = ""
    runner: str = ""
    cure: str = "name another folder in TMPDIR there"

    @property
    def name(self) -> str:
        """As the user writes it."""
        return f"ssh:{self.host}" + (f":{self.port}" if self.port else "")

    def command(self, script: str) -> list[str]:
        """As `Shell.command`: whatever the user's shell there is, sh runs it."""
        port = ("-p", str(self.port)) if self.port else ()
        return ["ssh", *_OPTIONS, *port, "--", self.host, f"sh -c {shlex.quote(script)}"]

    def refusal(self, code: int, error: str) -> HmsegError | None:
        """As `Shell.refusal`."""
        if code != _FAILED:
            return None
        line = last_line(error, "the connection broke")
        for words, cure in _FORBIDDEN:
            if words in line:
                return UserError(f"{self.name}: {line}; {cure}")
        cure = next((cure for words, cure in _CURES if words in line), f"try: ssh {self.host}")
        return UnreachableError(f"{self.name}: {line}; {cure}")


def ssh_shell(text: str) -> SshShell:
    """Of HOST, USER@HOST or either with :PORT. Raises UserError for anything else, and where this
    machine has no ssh."""
    found = _ADDRESS.fullmatch(text)
    port = int(found["port"] or 0) if found else 0
    if found is None or port > 65535 or (found["port"] and not port):
        raise UserError(f"--device ssh:{text}: write ssh:HOST, ssh:USER@HOST or ssh:HOST:PORT")
    if shutil.which("ssh") is None:
        raise UserError("ssh is not installed here; install OpenSSH's client")
    return SshShell(found["host"], port or None)
