"""Phones on a cable. None is here: what adb is told is held by a script that notes it and runs what
a phone would run; what the real client says without a phone is asked of it."""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deploy.artifact_file import save_artifact
from deploy.devices.adb import adb_shell
from deploy.devices.named import named_place
from deploy.devices.network import Remote
from deploy.devices.session import DeviceLostError
from lut.errors import UserError
from tests.conditions import ADB
from tests.deploy.cli.conftest import cli  # noqa: F401 - a fixture
from tests.deploy.devices.farm import free_port

# As adb: its arguments are noted, one line a call; a shell's script runs here, in a folder that
# stands for /data/local/tmp.
SCRIPT = """#!/bin/sh
printf '%s\\n' "$*" | sed 's#^#adb #' | head -1 >> "$ADB_LOG"
case "$1" in
  devices) printf 'List of devices attached\\n%b' "$PHONES"; exit ;;
esac
if [ -n "$UNPLUGGED" ]; then echo "error: device '$2' not found" >&2; exit 1; fi
case "$3 $4 $5" in
  "shell getprop ro.product.cpu.abi") echo "$ABI"; exit ;;
  "shell getprop ro.product.model") printf "$MODEL\\n"; exit ;;
esac
case "$3 $4" in
  "shell -T") exec sh -c "$(printf '%s' "$5" | sed "s#/data/local/tmp#$ADB_FOLDER#g")" ;;
esac
echo "adb: unknown command $*" >&2; exit 1
"""


@pytest.fixture
def phone(tmp_path, monkeypatch):
    """The log of a phone FA7A; `phone.setenv` changes what adb says of it."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "data").mkdir()
    adb = tmp_path / "bin" / "adb"
    adb.write_text(SCRIPT)
    adb.chmod(0o755)
    monkeypatch.setenv("PATH", f"{adb.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("ADB_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("ADB_FOLDER", str(tmp_path / "data"))
    monkeypatch.setenv("PHONES", "FA7A\\tdevice\\n")
    monkeypatch.setenv("ABI", "arm64-v8a")
    monkeypatch.setenv("MODEL", "Pixel 2")
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
    return monkeypatch


def test_what_adb_is_told(phone, tmp_path, small_artifact):
    """From the phone in the hand to its labels: who it is, what it is, the program there, its run;
    the folder is removed by the last line."""
    remote = Remote(named_place("adb", 60.0), threads=1)
    labels = remote.use(small_artifact, lambda n: n(small_artifact.golden.image))
    np.testing.assert_array_equal(labels, small_artifact.golden.labels)
    said = (tmp_path / "log").read_text().splitlines()
    begin = "adb -s FA7A shell -T echo hmseg begins;"
    assert said[:4] == [
        "adb devices",
        "adb -s FA7A shell getprop ro.product.cpu.abi",
        "adb -s FA7A shell getprop ro.product.model",
        f"{begin} uname -m && mktemp -d /data/local/tmp/hmseg-XXXXXX",
    ]
    folder = said[4].split()[10].removesuffix("/player")
    assert said[4:] == [
        f"{begin} cat > {folder}/player && chmod 700 {folder}/player",
        f"{begin} trap '' HUP;  {folder}/player {folder} 60 3600; code=$?; rm -rf {folder}; "
        "exit $code",
    ]
    assert not list((tmp_path / "data").iterdir())


def test_the_report_names_the_phone(phone, cli, small_artifact, tmp_path):  # noqa: F811
    save_artifact(small_artifact, tmp_path / "n.hmseg")
    what = ("profile", "n.hmseg", "--device", "adb:FA7A", "--repeat", "1", "--json")
    result = json.loads(cli(*what).succeeded().out)
    assert result["machine"]["device"] == "adb:FA7A"


def test_android_is_what_fits_a_phone(phone):
    assert adb_shell("FA7A").target == "android"
    assert adb_shell(None).board == "Pixel 2"


def test_a_phone_of_another_kind(phone):
    phone.setenv("ABI", "armeabi-v7a")
    with pytest.raises(UserError, match="the phone is armeabi-v7a; target android is arm64-v8a"):
        named_place("adb", 5.0)


def test_a_name_that_is_no_text(phone):
    phone.setenv("MODEL", "Pixel \\377")
    assert adb_shell("FA7A").board == "Pixel \ufffd"


def test_what_fails_is_named(phone):
    phone.setenv("UNPLUGGED", "1")
    with pytest.raises(UserError, match="adb shell failed: error: device 'FA7A' not found"):
        adb_shell("FA7A")


def test_an_adb_that_does_not_run(phone, tmp_path):
    (tmp_path / "bin" / "adb").write_bytes(b"\x7fELF of another machine")
    phone.setenv("PATH", str(tmp_path / "bin"))  # without a real one behind it
    with pytest.raises(UserError, match="cannot run adb: Exec format error"):
        adb_shell("FA7A")


def test_programs_are_forbidden_there(phone, tmp_path):
    """The folder by its own name, and nothing of TMPDIR, which no phone has."""
    place = named_place("adb", 5.0)
    shell = replace(place.shell, runner="/dev/null")
    with (
        pytest.raises(UserError, match=rf"not run programs in {tmp_path}/data .*owner forbids"),
        replace(place, shell=shell).open(),
    ):
        pass


def test_one_of_two_phones(phone):
    phone.setenv("PHONES", "FA7A\\tdevice\\n192.168.1.5:5555\\tdevice\\n")
    assert named_place("adb:192.168.1.5:5555", 5.0).name == "adb:192.168.1.5:5555"
    with pytest.raises(UserError, match="several phones; name one: --device adb:FA7A"):
        named_place("adb", 5.0)
    phone.setenv("ANDROID_SERIAL", "FA7A")
    assert named_place("adb", 5.0).name == "adb:FA7A"


@pytest.mark.parametrize(
    ("phones", "device", "cure"),
    [
        ("", "adb", "plug it in and switch on USB debugging"),
        ("FA7A\\tunauthorized\\n", "adb", "unlock it and allow USB debugging there"),
        ("FA7A\\toffline\\n", "adb", "the phone is offline for adb; unlock it, plug it in again"),
        ("FA7A\\tno permissions (missing udev rules)\\n", "adb", "no permissions"),
        ("FA7A\\tdevice\\n", "adb:FB", "sees no phone FB; plug it in"),
        ("FA7A\\toffline\\nFB\\toffline\\n", "adb", "leave one plugged in"),
    ],
)
def test_a_phone_that_is_not_ready(phone, cli, small_artifact, tmp_path, phones, device, cure):  # noqa: F811
    phone.setenv("PHONES", phones)
    save_artifact(small_artifact, tmp_path / "n.hmseg")
    done = cli("verify", "n.hmseg", "--device", device)
    assert done.code == 2
    assert cure in done.error


def test_a_phone_that_is_unplugged(phone, small_artifact, monkeypatch):
    """Before, and in the middle."""
    place = named_place("adb", 5.0)
    with place.open() as session:
        program = session.link.program
        subprocess.run(["pkill", "-KILL", "-P", str(program.pid)], check=True)  # of the phone
        program.kill()
        monkeypatch.setenv("UNPLUGGED", "1")
        with pytest.raises(DeviceLostError, match="device adb:FA7A was lost while"):
            session.call("timing 3 frames", lambda: session.ask("about"))
    with pytest.raises(UserError, match="'FA7A' not found; unlock the phone, plug it in"):
        place.open().__enter__()


def test_the_list(phone, cli):  # noqa: F811
    phone.setenv("PHONES", "FA7A\\tdevice\\nFB\\tunauthorized\\n")
    found = json.loads(cli("device", "list", "--adb", "--json").succeeded().out)
    assert found == [
        {"device": "adb:FA7A", "state": "device"}, {"device": "adb:FB", "state": "unauthorized"},
    ]  # fmt: skip
    assert "adb:FB" in cli("device", "list", "--adb").succeeded().out


def test_no_adb(monkeypatch, cli):  # noqa: F811
    monkeypatch.setenv("PATH", "")
    done = cli("device", "doctor", "--device", "adb")
    assert (done.code, "adb is not installed" in done.error) == (2, True)


def test_the_real_client_without_a_phone(cli, monkeypatch, tmp_path):  # noqa: F811
    """A server of its own, at a port of its own, which it leaves running: it is ended here."""
    ADB.require()
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(free_port()))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("ANDROID_SERIAL", raising=False)
    try:
        done = cli("device", "doctor", "--device", "adb")
        assert done.code == 2
        assert "adb sees no phone; plug it in" in done.error
        done = cli("device", "doctor", "--device", "adb:FA7A")
        assert (done.code, "adb sees no phone" in done.error) == (2, True)
        assert cli("device", "list", "--adb", "--json").succeeded().out.strip() == "[]"
    finally:
        subprocess.run(["adb", "kill-server"], check=False, capture_output=True)


def test_the_real_client_takes_these_words():
    """That -T, which keeps bytes as they are, is an option of its shell command."""
    ADB.require()
    done = subprocess.run(["adb", "help"], capture_output=True, text=True, check=False)
    text = done.stdout + done.stderr
    assert "shell [-e ESCAPE] [-n] [-Tt] [-x] [COMMAND...]" in text
    assert "-s SERIAL" in text
    assert Path(subprocess.check_output(["sh", "-c", "command -v adb"], text=True).strip()).exists()
