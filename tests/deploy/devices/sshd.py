"""A real OpenSSH server on loopback with keys of its own, and the real client, which is made to
read a configuration of the tests' own."""

import os
import shutil
import socket
import subprocess
from pathlib import Path

from tests.deploy.devices.farm import LOOPBACK, free_port, until

PATH = f"{os.environ['PATH']}{os.pathsep}/usr/sbin"
_SERVER = """
Port {port}
ListenAddress {loopback}
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
"""
# Of one name each: a machine that answers, one with a key that it does not know, one that nobody
# has connected to before, one where nothing listens.
_CLIENT = """
Host stranger
  IdentityFile {folder}/stranger
Host unknown
  UserKnownHostsFile /dev/null
Host nobody
  Port {nobody}
Host * !stranger
  IdentityFile {folder}/user
Host *
  HostName {loopback}
  Port {port}
  UserKnownHostsFile {folder}/known
  IdentitiesOnly yes
"""


class Sshd:
    """`bin` is a folder with the client, for the front of PATH; `more` are lines of the server's
    configuration."""

    def __init__(self, folder: Path, more: str = "") -> None:
        self.folder, self.port = folder, free_port()
        self.bin = folder / "bin"
        self.bin.mkdir()
        for name in ("host", "user", "stranger"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name]
            subprocess.run(command, check=True)
        host_key = (folder / "host.pub").read_text()
        (folder / "known").write_text(f"[{LOOPBACK}]:{self.port} {host_key}")
        places = {"folder": folder, "port": self.port, "loopback": LOOPBACK}
        (folder / "server").write_text(_SERVER.format(**places) + more)
        config = folder / "client"
        config.write_text(_CLIENT.format(**places, nobody=free_port()))
        client = self.bin / "ssh"
        client.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {config} "$@"\n')
        client.chmod(0o755)
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        if os.geteuid() == 0:  # where Debian's start script would have made it
            Path("/run/sshd").mkdir(exist_ok=True)
        server = shutil.which("sshd", path=PATH)
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [server, "-D", "-e", "-f", self.folder / "server"], stderr=log, stdout=log
            )
        until(self._listens, 20, "sshd")
        return process

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(20)

    def _listens(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex((LOOPBACK, self.port)) == 0
