"""Linking a library for the machine it is meant for, with no system toolchain of that machine."""

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from deploy import host
from deploy.target import Target
from lut.errors import UserError

# The C libraries that generated code calls (memset, expf), by the names that the device's loader
# knows: glibc's, and bionic's on Android. The library only has to name them; the device has them.
_GLIBC, _BIONIC = ("libm.so.6", "libc.so.6"), ("libm.so", "libc.so")
# Else lld leaves out a library that no symbol was found in, and the stubs have none.
_KEEP = "-Wl,--no-as-needed"
# Devices with Android 15 map memory in pages of 16 KB.
_PAGES = "-Wl,-z,max-page-size=16384"
NDK = "TVM_NDK_CC"  # the NDK's clang, as TVM calls it


def _android(target: Target) -> bool:
    """Whether it links against Android's C library, bionic."""
    return "android" in target.config["mtriple"]


def linker_of(target: Target) -> Callable[..., None] | None:
    """How to link for `target`, as `fcompile` of TVM's export_library; None where this machine's
    own C compiler does it.

    For 64-bit ARM it is the clang of PyPI's ziglang, or on Android the NDK's where TVM_NDK_CC names
    it. Raises UserError where neither is there.
    """
    if _android(target) and os.environ.get(NDK):
        return _ndk
    if target.architecture == host.architecture() and not _android(target):
        return None
    if importlib.util.find_spec("ziglang") is None:
        ndk = f", or set {NDK} to the NDK's aarch64-linux-android21-clang++" * _android(target)
        raise UserError(
            f"linking for {target.config['mtriple']} needs ziglang: pip install ziglang{ndk}"
        )
    names = _BIONIC if _android(target) else _GLIBC
    system = "android" if _android(target) else "gnu"

    def link(output: str, objects: Sequence[str], **_: object) -> None:
        with tempfile.TemporaryDirectory(prefix="hmseg-link-") as folder:
            source = Path(folder) / "empty.c"
            source.write_text("")
            stubs = [str(Path(folder) / name) for name in names]
            for stub, name in zip(stubs, names, strict=True):
                _zig(f"aarch64-linux-{system}", stub, [str(source)], f"-Wl,-soname,{name}")
            _zig(f"aarch64-linux-{system}", output, [_KEEP, *objects, *stubs], _PAGES)

    return link


def _zig(triple: str, output: str, inputs: Sequence[str], option: str) -> None:
    zig = (sys.executable, "-m", "ziglang", "cc", "-target", triple, "-nostdlib", "-shared")
    _run([*zig, option, "-o", output, *inputs])


def _ndk(output: str, objects: Sequence[str], **_: object) -> None:
    _run([os.environ[NDK], "-shared", "-fPIC", _PAGES, "-lm", "-o", output, *objects])


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise UserError(f"linking: cannot run {command[0]}: {error.strerror}") from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or [done.stderr]
        raise UserError(f"linking with {Path(command[0]).name} failed: {lines[-1].strip()[-300:]}")
