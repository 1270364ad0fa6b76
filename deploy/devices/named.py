"""Devices by the address that a user writes: ssh:HOST, adb or adb:SERIAL."""

from deploy.devices.adb import adb_shell
from deploy.devices.player import PlayerPlace
from deploy.devices.ssh import ssh_shell
from lut.errors import UserError


def named_place(text: str, call_limit_s: float) -> PlayerPlace:
    """The device. Raises UserError for another address, where the program that reaches it is not
    installed here, and for a phone that is not there or not authorised."""
    kind, _, rest = text.partition(":")
    if kind == "ssh" and rest:
        return PlayerPlace(ssh_shell(rest), call_limit_s)
    if kind == "adb" and (rest or text == "adb"):
        return PlayerPlace(adb_shell(rest or None), call_limit_s)
    raise UserError(
        f"--device {text}: write ssh:HOST, ssh:USER@HOST, ssh:HOST:PORT, adb or adb:SERIAL"
    )
