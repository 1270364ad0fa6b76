"""A device that gives a shell: scripts are run there, with bytes in and bytes out."""

import subprocess
from typing import Protocol

from lut.errors import HmsegError, UserError, WorkError

ANSWER_S = 60.0  # of a script that does nothing long; a slow line may send a program with it
MARK = "hmseg begins"  # before what a script prints: the login's own files may print something too


class UnreachableError(UserError):
    """There is no connection now; in a moment there may be one."""


class Shell(Protocol):
    """How scripts get to a device."""

    @property
    def name(self) -> str:
        """What the user calls it."""

    @property
    def base(self) -> str:
        """A folder there that programs may run in, as a word of the shell."""

    @property
    def target(self) -> str | None:
        """What is compiled for it where its architecture alone does not say."""

    @property
    def board(self) -> str:
        """What it calls itself; empty where a file of its own says."""

    @property
    def runner(self) -> str:
        """The command that runs a program there, of an emulator; empty where none is needed."""

    @property
    def cure(self) -> str:
        """What to do where programs do not run in that folder."""

    def command(self, script: str) -> list[str]:
        """The command here that runs a script of POSIX's shell there, its standard input and output
        passed on as they are."""

    def refusal(self, code: int, error: str) -> HmsegError | None:
        """Why there was no connection, with the cure, after a command ended with `code` and this
        on its standard error; None where the script ran. An `UnreachableError` where it may help
        to try again."""


def run_script(shell: Shell, script: str, given: bytes = b"") -> str:
    """What a script prints. Raises UserError where there is no connection, WorkError where the
    script fails or does not end."""
    command = shell.command(marked(script))
    try:
        done = subprocess.run(
            command, input=given, capture_output=True, check=False, timeout=ANSWER_S
        )
    except subprocess.TimeoutExpired:
        raise WorkError(f"{shell.name} does not answer within {ANSWER_S:g} s") from None
    except OSError as error:
        raise UserError(f"cannot run {command[0]}: {error.strerror}") from error
    text = done.stderr.decode(errors="replace")
    if done.returncode == 0:
        before, mark, printed = done.stdout.decode(errors="replace").partition(f"{MARK}\n")
        if not mark:
            raise WorkError(f"{shell.name} does not run commands: it says {before[:100]!r}")
        return printed
    refused = shell.refusal(done.returncode, text)
    raise refused or WorkError(f"{shell.name}: {last_line(text, f'exit {done.returncode}')}")


def marked(script: str) -> str:
    """The script, which says with a line when it begins."""
    return f"echo {MARK}; {script}"


def last_line(text: str, otherwise: str) -> str:
    """What a program says last; `otherwise` where it says nothing."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else otherwise
