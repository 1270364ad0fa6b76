"""Devices by the address that a user writes: ssh:HOST, adb or adb:SERIAL."""

from typing import TYPE_CHECKING

from deploy.devices.adb import adb_shell
from deploy.devices.ssh import ssh_shell
from lut.errors import UserError

if TYPE_CHECKING:
    from deploy.devices.player import PlayerPlace
    from deploy.devices.shell import Shell


def named_place(text: str, call_limit_s: float) -> "PlayerPlace":
    """The device. Raises UserError for another address, where the program that reaches it is not
    installed here, and for a phone that is not there or not authorised."""
    shell = _shell(text)  # first: what works on a device takes seconds to import
    from deploy.devices.player import PlayerPlace

    return PlayerPlace(shell, call_limit_s)


def _shell(text: str) -> "Shell":
    kind, _, rest = text.partition(":")
    if kind == "ssh" and rest:
        return ssh_shell(rest)
    if kind == "adb" and (rest or text == "adb"):
        return adb_shell(rest or None)
    raise UserError(
        f"--device {text}: write ssh:HOST, ssh:USER@HOST, ssh:HOST:PORT, adb or adb:SERIAL"
    )
