"""A phone on a cable: what Android's adb says of it."""

import os
import shutil
import subprocess

from deploy.devices.address import Address
from lut.errors import UserError

ABI = "arm64-v8a"
_ANSWER_S = 10.0


def check_phone(tracker: Address) -> str:
    """The phone's name; raises UserError, with the cure, unless it can reach the tracker by cable.

    Exactly one phone must be connected and authorised, be of 64-bit ARM, and have the tracker's
    port reversed, so that 127.0.0.1 there is this machine.
    """
    if shutil.which("adb") is None:
        raise UserError("adb is not installed; install Android's platform-tools (Debian: adb)")
    listed = [line.split() for line in _adb("devices").splitlines()[1:] if line.strip()]
    if not listed:
        raise UserError("adb sees no phone; plug it in and switch on USB debugging")
    serial = os.environ.get("ANDROID_SERIAL")  # adb itself obeys it; its list is of all phones
    if serial:
        listed = [words for words in listed if words[0] == serial]
    if not listed:
        raise UserError(f"adb sees no phone {serial}, which ANDROID_SERIAL names; plug it in")
    states = [words[1] for words in listed]
    if len(states) > 1 and "device" not in states:
        raise UserError("adb sees several phones, none ready; leave one plugged in")
    if states.count("device") > 1:
        raise UserError("adb sees several phones; name one in ANDROID_SERIAL")
    if "device" not in states:
        raise UserError(
            f"the phone is {states[0]} for adb; unlock it and allow USB debugging there"
        )
    abi = _adb("shell", "getprop", "ro.product.cpu.abi").strip()
    if abi != ABI:
        raise UserError(f"the phone is {abi or 'of an unknown kind'}; target android is {ABI}")
    port = f"tcp:{tracker.port}"
    if not any(port in line.split() for line in _adb("reverse", "--list").splitlines()):
        raise UserError(
            f"the phone cannot reach the tracker over the cable; run: adb reverse {port} {port}"
        )
    return _adb("shell", "getprop", "ro.product.model").strip() or "phone"


def _adb(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ("adb", *arguments), capture_output=True, text=True, check=False, timeout=_ANSWER_S
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"adb {arguments[0]} does not answer; run: adb kill-server") from None
    if done.returncode:
        line = (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
        raise UserError(f"adb {arguments[0]} failed: {line[:200]}")
    return done.stdout
