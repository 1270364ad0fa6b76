"""Devices whose shell is this machine's own, for what needs no connection."""

import shlex
from dataclasses import dataclass, field
from pathlib import Path

from deploy.devices.ssh import SshShell


@dataclass(frozen=True)
class LocalShell:
    """`deploy.devices.shell.Shell`. `prefix` runs before each script's sh."""

    base: str
    name: str = "local"
    target: str | None = None
    board: str = ""
    runner: str = ""
    cure: str = "another folder is needed"
    prefix: list[str] = field(default_factory=list)

    def command(self, script: str) -> list[str]:
        return [*self.prefix, "sh", "-c", script]

    def refusal(self, code: int, error: str) -> None:
        del code, error


@dataclass(frozen=True)
class RefusingShell(SshShell):
    """What ssh says where the connections with these numbers, from 1, are refused; the others are
    made. `scripts` are those that were to run."""

    refused: dict[int, str] = field(default_factory=dict)
    scripts: list[str] = field(default_factory=list)

    def command(self, script: str) -> list[str]:
        self.scripts.append(script)
        if line := self.refused.get(len(self.scripts)):
            script = f"echo {shlex.quote(line)} >&2; exit 255"
        return ["sh", "-c", script]


def emulated_shell(folder: Path, emulator: str, cpu: str = "cortex-a72") -> LocalShell:
    """A 64-bit ARM machine: what says what it is, and what runs programs there."""
    (folder / "bin").mkdir(exist_ok=True)
    uname = folder / "bin" / "uname"
    uname.write_text("#!/bin/sh\necho aarch64\n")
    uname.chmod(0o755)
    (folder / "tmp").mkdir(exist_ok=True)
    prefix = ["env", f"PATH={folder / 'bin'}:/usr/bin:/bin", "HMSEG_EMULATED=1"]
    return LocalShell(
        str(folder / "tmp"), "emulated", runner=f"{emulator} -cpu {cpu}", prefix=prefix
    )
