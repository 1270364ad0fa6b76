"""A phone on a cable: what Android's adb says of it, and its shell."""

import os
import shutil
import subprocess
from dataclasses import dataclass

from deploy.devices.address import Address
from deploy.devices.shell import UnreachableError, last_line
from lut.errors import HmsegError, UserError

ABI = "arm64-v8a"
_ANSWER_S = 10.0
_STARTING_S = 30.0  # its server, at the first command
# What adb itself says where it cannot reach the phone; a script's errors begin otherwise.
_OWN_ERRORS = ("error: ", "adb: ", "* failed")


@dataclass(frozen=True)
class AdbShell:
    """`deploy.devices.shell.Shell`, for Android 7 and later: before, its shell changed bytes."""

    serial: str
    board: str
    base: str = "/data/local/tmp"
    target: str | None = "android"
    runner: str = ""
    cure: str = "its maker or its owner forbids that; another phone is needed"

    @property
    def name(self) -> str:
        """As the user may write it."""
        return f"adb:{self.serial}"

    def command(self, script: str) -> list[str]:
        """As `Shell.command`."""
        return ["adb", "-s", self.serial, "shell", "-T", script]

    def refusal(self, code: int, error: str) -> HmsegError | None:
        """As `Shell.refusal`."""
        line = last_line(error, "")
        if not line.startswith(_OWN_ERRORS):
            return None
        kind = UserError if "unauthorized" in line else UnreachableError
        return kind(f"{self.name}: {line}; unlock the phone, plug it in, allow debugging")


def adb_shell(serial: str | None) -> AdbShell:
    """Of the phone with this serial number, by default the only one. Raises UserError, with the
    cure, unless it is there, authorised and of 64-bit ARM."""
    serial = find_phone(serial)
    _check_abi(serial)
    return AdbShell(serial, _property(serial, "ro.product.model"))


def check_phone(tracker: Address) -> str:
    """The phone's name; raises UserError, with the cure, unless it can reach the tracker by cable.

    One phone must be ready, or named by ANDROID_SERIAL, be of 64-bit ARM, and have the tracker's
    port reversed, so that 127.0.0.1 there is this machine.
    """
    serial = find_phone(None)
    _check_abi(serial)
    port = f"tcp:{tracker.port}"
    reversed_ = _adb("reverse", "--list", serial=serial)
    if not any(port in line.split() for line in reversed_.splitlines()):
        raise UserError(
            f"the phone cannot reach the tracker over the cable; run: adb -s {serial} reverse "
            f"{port} {port}"
        )
    return _property(serial, "ro.product.model") or "phone"


def phones() -> list[tuple[str, str]]:
    """Serial number and state of each phone that adb sees; ``device`` is a phone that is ready.
    Raises UserError where there is no adb."""
    if shutil.which("adb") is None:
        raise UserError("adb is not installed; install Android's platform-tools (Debian: adb)")
    found = []
    for line in _adb("devices", limit_s=_STARTING_S).splitlines():
        serial, _, state = line.partition("\t")
        if state:
            found.append((serial, state.strip()))
    return found


def find_phone(serial: str | None) -> str:
    """The serial number of the phone that is meant: the given one, else that of ANDROID_SERIAL,
    which adb itself obeys, else the only one. Raises UserError, with the cure, unless it is there,
    authorised and awake."""
    listed = phones()
    if not listed:
        raise UserError("adb sees no phone; plug it in and switch on USB debugging")
    wanted = serial or os.environ.get("ANDROID_SERIAL")
    if wanted:
        listed = [phone for phone in listed if phone[0] == wanted]
    if not listed:
        named = "" if serial else ", which ANDROID_SERIAL names"
        raise UserError(f"adb sees no phone {wanted}{named}; plug it in")
    ready = [phone for phone, state in listed if state == "device"]
    if len(ready) > 1:
        raise UserError(
            f"adb sees several phones; name one: --device adb:{ready[0]}, or ANDROID_SERIAL"
        )
    if not ready:
        if len(listed) > 1:
            raise UserError("adb sees several phones, none ready; leave one plugged in")
        state = listed[0][1]
        cure = (
            "unlock it and allow USB debugging there"
            if state == "unauthorized"
            else "unlock it, plug it in again, and allow USB debugging there"
        )
        raise UserError(f"the phone is {state} for adb; {cure}")
    return ready[0]


def _check_abi(serial: str) -> None:
    abi = _property(serial, "ro.product.cpu.abi")
    if abi != ABI:
        raise UserError(f"the phone is {abi or 'of an unknown kind'}; target android is {ABI}")


def _property(serial: str, name: str) -> str:
    return _adb("shell", "getprop", name, serial=serial).strip()


def _adb(*arguments: str, serial: str | None = None, limit_s: float = _ANSWER_S) -> str:
    phone = ("-s", serial) if serial else ()
    try:
        done = subprocess.run(
            ("adb", *phone, *arguments), capture_output=True, check=False, timeout=limit_s
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"adb {arguments[0]} does not answer; run: adb kill-server") from None
    except OSError as error:
        raise UserError(f"cannot run adb: {error.strerror}") from error
    if done.returncode:
        line = last_line(done.stderr.decode(errors="replace"), f"exit {done.returncode}")
        raise UserError(f"adb {arguments[0]} failed: {line}")
    return done.stdout.decode(errors="replace")
