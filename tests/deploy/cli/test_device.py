"""hmseg-deploy device: what it refuses, and a phone that is not quite ready."""

import os
import signal
import socket
import subprocess
from threading import Thread

import pytest

from deploy.devices.adb import check_phone
from deploy.devices.address import Address, parse_address
from deploy.devices.tracker import states
from lut.errors import UserError
from tests.deploy.cli.conftest import PROGRAM
from tests.deploy.devices.farm import LOOPBACK, free_port, until

TRACKER = Address(LOOPBACK, 9190)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tracker", "--host", "0.0.0.0"), "add --allow-remote"),
        (("serve", "--rpc-key", "a", "--host", "192.168.1.5"), "can run anything here"),
        (("tracker", "--allow-remote"), "--allow-remote needs --host"),
        (("tracker", "--port", "0"), "'--port': Input should be greater than or equal to 1"),
        (("serve",), "--rpc-key"),
        (("serve", "--rpc-key", "two words"), "without spaces"),
        (("serve", "--rpc-key", "a:b"), "colons"),
        (("doctor",), "--rpc-key"),
        (("doctor", "--rpc-key", "a", "--rpc-tracker", "nonsense:x"), "HOST:PORT"),
        (("doctor", "--rpc-key", "a", "--threads", "0"), "--threads 0"),
        (("doctor", "--device", "ssh:a", "--rpc-limit", "inf"), "--rpc-limit inf"),
        (("doctor", "--device", "ssh:a", "--rpc-limit", "nan"), "--rpc-limit nan"),
        (("doctor", "--rpc-key", "a", "--rpc-limit", "1e10"), "at most 1000000"),
        (("list", "--rpc-tracker", "127.0.0.1:1"), "no tracker answers at 127.0.0.1:1"),
    ],
)
def test_mistakes(cli, arguments, message):
    done = cli("device", *arguments)
    assert done.code == 2
    assert message in done.error


@pytest.mark.parametrize("command", ["compile", "verify", "bench", "tune"])
def test_commands_that_measure_take_a_device(cli, command, tmp_path):
    where = ("--rpc-tracker", "127.0.0.1:1")
    what = (tmp_path / "a.hmseg",) if command == "verify" else ()
    done = cli(command, *what, *where)
    assert (done.code, "needs --rpc-key" in done.error) == (2, True)
    done = cli(command, *what, *where, "--rpc-key", "arm")
    assert (done.code, "no tracker answers" in done.error) == (2, True)
    done = cli(command, *what, *where, "--rpc-key", "arm", "--rpc-limit", "nan")
    assert (done.code, "--rpc-limit" in done.error) == (2, True)


def test_something_else_at_the_trackers_address(cli):
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        listener.listen()
        address = f"{LOOPBACK}:{listener.getsockname()[1]}"

        def answer():
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")

        server = Thread(target=answer)
        server.start()
        done = cli("device", "list", "--rpc-tracker", address)
        server.join()
    assert done.code == 2
    assert done.err == f"error: what answers at {address} is not a TVM tracker\n"


def test_the_tracker_listens_on_loopback_and_says_so():
    port = free_port()
    with subprocess.Popen(
        [*PROGRAM, "device", "tracker", "--port", str(port)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as program:  # fmt: skip
        try:
            assert program.stdout.readline() == f"{LOOPBACK}:{port}\n"
            said = f"tracker at {LOOPBACK}:{port}, for this machine only\n"
            assert program.stderr.readline() == said
            assert states(Address(LOOPBACK, port)) == []
            program.send_signal(signal.SIGINT)  # which a job in a shell's background does not heed
            assert program.wait(20) == 130
        finally:
            program.kill()


def test_a_tracker_takes_no_other_port_than_it_is_told(cli):
    with socket.create_server((LOOPBACK, 0)) as taken:
        port = taken.getsockname()[1]
        done = cli("device", "tracker", "--port", str(port))
    assert (done.code, done.out) == (2, "")
    assert done.error == (
        f"error: the tracker cannot listen at {LOOPBACK}:{port} (Address already in use); choose "
        "another with --port"
    )


def test_a_server_ends_by_interrupt():
    with subprocess.Popen(
        [*PROGRAM, "device", "serve", "--rpc-key", "k", "--rpc-tracker", f"{LOOPBACK}:1"],
        stderr=subprocess.PIPE, text=True,
    ) as program:  # fmt: skip
        assert "for this machine only" in program.stderr.readline()
        until(lambda: "serving at" in program.stderr.readline(), 60, "the server")
        program.send_signal(signal.SIGINT)
        assert program.wait(20) == 130


def test_addresses():
    assert parse_address("phone.local:9000") == ("phone.local", 9000)
    assert parse_address("phone") == ("phone", 9190)
    assert Address("127.0.0.1", 1).loopback
    assert not Address("0.0.0.0", 1).loopback
    for text in ("", ":1", "a:", "a:0", "a:70000", "a:-1"):
        with pytest.raises(UserError, match="HOST:PORT"):
            parse_address(text)


# No phone is here: a script answers as adb does.
ADB = """#!/bin/sh
if [ "$1" = devices ]; then printf 'List of devices attached\\n%b' "$PHONES"; exit; fi
if [ "$1" = -s ]; then shift 2
elif [ "$(printf '%b' "$PHONES" | wc -l)" != 1 ]; then
  echo "error: more than one device/emulator" >&2; exit 1
fi
case "$1 $2" in
  "shell getprop") case "$3" in ro.product.cpu.abi) echo "$ABI" ;; *) echo "Pixel 2" ;; esac ;;
  "reverse --list") printf '%b' "$REVERSED" ;;
  *) echo "unknown command" >&2; exit 1 ;;
esac
"""


@pytest.fixture
def phone(tmp_path, monkeypatch):
    adb = tmp_path / "adb"
    adb.write_text(ADB)
    adb.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    ready = {
        "PHONES": "FA7A\\tdevice\\n", "ABI": "arm64-v8a",
        "REVERSED": "UsbFfs tcp:9190 tcp:9190\\n",
    }  # fmt: skip
    for name, value in ready.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_a_phone_that_is_ready(phone):
    assert check_phone(TRACKER) == "Pixel 2"


def test_one_of_two_phones_is_named(phone):
    phone.setenv("PHONES", "FA7A\\tdevice\\nFB\\tdevice\\n")
    phone.setenv("ANDROID_SERIAL", "FB")
    assert check_phone(TRACKER) == "Pixel 2"
    phone.setenv("ANDROID_SERIAL", "FC")
    with pytest.raises(UserError, match="no phone FC"):
        check_phone(TRACKER)


def test_the_ready_one_of_two_phones_is_taken(phone):
    phone.setenv("PHONES", "FA7A\\tdevice\\nFB\\tunauthorized\\n")
    assert check_phone(TRACKER) == "Pixel 2"


@pytest.mark.parametrize(
    ("name", "value", "cure"),
    [
        ("PHONES", "", "plug it in"),
        ("PHONES", "FA7A\\tunauthorized\\n", "allow USB debugging"),
        ("PHONES", "FA7A\\tdevice\\nFB\\tdevice\\n", "ANDROID_SERIAL"),
        ("ABI", "armeabi-v7a", "android is arm64-v8a"),
        ("REVERSED", "", "run: adb -s FA7A reverse tcp:9190 tcp:9190"),
        ("REVERSED", "UsbFfs tcp:91900 tcp:9190x\\n", "adb -s FA7A reverse"),
    ],
)
def test_a_phone_that_is_not(phone, name, value, cure):
    phone.setenv(name, value)
    with pytest.raises(UserError, match=cure) as caught:
        check_phone(TRACKER)
    assert "\n" not in str(caught.value)


def test_no_adb(monkeypatch, cli):
    monkeypatch.setenv("PATH", "")
    done = cli("device", "doctor", "--rpc-key", "phone", "--adb")
    assert done.code == 1
    assert "adb: adb is not installed" in done.error
