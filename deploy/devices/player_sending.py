"""How the program gets to a device: into a folder of its own there, which goes with it."""

import re
import shlex
from contextlib import suppress

from deploy.devices.player_program import ARCHITECTURES, player_program
from deploy.devices.shell import Shell, marked, run_script
from lut.errors import HmsegError, UserError, WorkError

_FOLDER = re.compile(r"/(.*/)?hmseg-[A-Za-z0-9]{6}")  # nothing else is ever removed


def send(shell: Shell) -> str:
    """The folder there that the program lies in, ready to run. Raises UserError where the device
    cannot be reached, is of another architecture or has no room; nothing is left there then."""
    printed = run_script(shell, f"uname -m && mktemp -d {shell.base}/hmseg-XXXXXX")
    architecture, _, folder = (part.strip() for part in printed.partition("\n"))
    if not _FOLDER.fullmatch(folder):
        with suppress(HmsegError):
            run_script(shell, f"rmdir -- {shlex.quote(folder)}")
        raise UserError(
            f"{shell.name} makes a folder {folder[:100]!r}; its TMPDIR must begin with /"
        )
    try:
        _fill(shell, folder, architecture.replace("arm64", "aarch64"))
    except BaseException:
        remove(shell, folder)
        raise
    return folder


def _fill(shell: Shell, folder: str, architecture: str) -> None:
    if architecture not in ARCHITECTURES:
        raise UserError(
            f"{shell.name} is {architecture}; this version compiles for "
            f"{' and '.join(ARCHITECTURES)}"
        )
    path = _path(folder)
    program = player_program(architecture)
    try:
        run_script(shell, f"cat > {path} && chmod 700 {path}", program)
    except WorkError as error:
        if "No space left" in str(error):
            raise UserError(f"{error}; free some room there") from error
        raise


def run_command(shell: Shell, folder: str, *seconds: int) -> list[str]:
    """The command here that runs the program there, told `seconds`, and then removes its folder.

    Without a connection the program's input ends, and so does it; the shell is to outlive it.
    """
    place = shlex.quote(folder)
    limits = " ".join(map(str, seconds))
    program = f"{shell.runner} {_path(folder)} {place} {limits}"
    return shell.command(marked(f"trap '' HUP; {program}; code=$?; rm -rf {place}; exit $code"))


def remove(shell: Shell, folder: str) -> None:
    """Remove what `send` made, where the device is still there."""
    with suppress(HmsegError):
        run_script(shell, f"rm -rf {shlex.quote(folder)}")


def _path(folder: str) -> str:
    return shlex.quote(f"{folder}/player")
