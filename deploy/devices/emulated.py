"""An emulated 64-bit ARM machine: Debian's qemu and arm64 Python, PyPI's aarch64 wheels of TVM.

For correctness only. It shows that a binary for ARM computes what it should; its latencies say
nothing of any ARM processor, and whatever is measured on it is labelled as emulated. Everything is
unpacked into a folder of the cache; nothing of the machine that runs it is changed.
"""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

from deploy.devices.address import Address
from lut.errors import UserError, WorkError
from lut.files import cache_folder

# The Cortex-A73 is ARMv8.0, as the A72 is, which qemu knows: an instruction that the A73 lacks
# ends the server here too.
QEMU_CPU = "cortex-a72"
KEY = "emulated-arm64"
EMULATED = "HMSEG_EMULATED"  # set in the machine's environment: its server says so to clients

_DEBIAN = ("python3:arm64", "libstdc++6:arm64", "qemu-user-static")
# What TVM's RPC server imports.
_WHEELS = ("apache-tvm", "apache-tvm-ffi", "tornado", "psutil", "cloudpickle")
_PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")

# A stand-in for `python`, found by its own place so that the folder may be moved. The server starts
# children with sys.executable: the qemu line has to be in it.
_WRAPPER = f"""#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
export PYTHONHOME="$here/root/usr" PYTHONPATH="$here/site${{HMSEG_SOURCE:+:$HMSEG_SOURCE}}"
export {EMULATED}=1
unset LD_LIBRARY_PATH LD_PRELOAD VIRTUAL_ENV
exec "$here/tools/usr/bin/qemu-aarch64-static" -cpu {QEMU_CPU} -L "$here/root" \\
    "$here"/root/usr/bin/python3 "$@"
"""


def default_folder() -> Path:
    """Where the machine lives; a folder for each version of TVM."""
    return cache_folder() / f"emulated-arm64-{version('apache-tvm')}"


def python_of(folder: Path) -> Path:
    """The machine's Python, to be run like any program."""
    return folder / "python"


def is_set_up(folder: Path) -> bool:
    """Whether `set_up` has finished there; the folder gets its name when it has."""
    return python_of(folder).exists()


def environment() -> dict[str, str]:
    """For processes of the machine: this program's own source can be imported there."""
    return {**os.environ, "HMSEG_SOURCE": str(Path(__file__).parents[2])}


def set_up(folder: Path, on_step: Callable[[str], None] = lambda _: None) -> None:
    """Download and unpack the machine: 220 MB to fetch, 810 MB on disk.

    Needs Debian's apt-get and dpkg-deb, no root. Raises UserError where they are missing, WorkError
    where a download fails; then there is no folder.
    """
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise UserError(
                f"the emulated device is made of Debian packages, and {tool} is not here; "
                "run this on Debian, or in a container of it"
            )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".emulated-") as temporary:
        machine = Path(temporary) / "machine"
        on_step("Debian packages")
        for package in _debian_packages(Path(temporary) / "apt"):
            ours = package.name.endswith(("_arm64.deb", "_all.deb"))
            if ours or package.name.startswith("qemu-user-static_"):
                where = machine / ("root" if ours else "tools")
                where.mkdir(parents=True, exist_ok=True)
                _run("dpkg-deb", "-x", str(package), str(where))
        on_step("aarch64 wheels")
        wrapper = python_of(machine)
        wrapper.write_text(_WRAPPER)
        wrapper.chmod(wrapper.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
        _install_wheels(machine)
        on_step("first start")
        _run(str(wrapper), "-c", "import tvm.rpc")
        machine.rename(folder)


def server_command(folder: Path, tracker: Address, key: str) -> list[str]:
    """The command that runs the device server inside the machine, with `environment`."""
    python = str(python_of(folder))
    return [python, "-m", "deploy.devices.server", "--tracker", str(tracker), "--key", key]


def run_server(folder: Path, tracker: Address, key: str) -> NoReturn:
    """Become the machine's device server."""
    command = server_command(folder, tracker, key)
    os.execve(command[0], command, environment())


def _debian_packages(apt: Path) -> list[Path]:
    """Download packages and all they depend on, through an apt whose state is all in `apt`."""
    for part in ("state/lists/partial", "cache/archives/partial"):
        (apt / part).mkdir(parents=True)
    (apt / "state/status").touch()  # an empty machine: every dependency is fetched
    native = _run("dpkg", "--print-architecture").strip()
    config = apt / "apt.conf"
    config.write_text(
        f'APT::Architecture "{native}";\nAPT::Architectures {{ "{native}"; "arm64"; }};\n'
        f'Dir::State "{apt}/state";\nDir::State::status "{apt}/state/status";\n'
        f'Dir::Cache "{apt}/cache";\nAPT::Sandbox::User "root";\nDebug::NoLocking "1";\n'
    )
    env = {**os.environ, "APT_CONFIG": str(config), "LC_ALL": "C"}
    _run("apt-get", "-q", "update", env=env)
    get = ("apt-get", "-q", "-y", "--no-install-recommends", "--download-only", "install")
    _run(*get, *_DEBIAN, env=env)
    return sorted((apt / "cache/archives").glob("*.deb"))


def _install_wheels(machine: Path) -> None:
    minor = _run(str(python_of(machine)), "-c", "import sys; print('%d.%d' % sys.version_info[:2])")
    platforms = [word for name in _PLATFORMS for word in ("--platform", name)]
    _run(
        sys.executable, "-m", "pip", "install", "--quiet", "--target", str(machine / "site"),
        "--only-binary=:all:", "--python-version", minor.strip(), *platforms,
        *(f"{name}=={version(name)}" for name in _WHEELS),
    )  # fmt: skip


def _run(*command: str, env: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or [f"exit {done.returncode}"]
        raise WorkError(f"the emulated device: {Path(command[0]).name} failed: {lines[-1][-300:]}")
    return done.stdout
