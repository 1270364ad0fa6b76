"""Compiling a library's C and linking it for the machine it is meant for, with no toolchain of that
machine."""

import functools
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy import host
from deploy.target import Target
from lut.errors import UserError

# The C libraries that a library asks for, by the names that the device's loader knows: glibc's, and
# bionic's on Android. The library only has to name them; the device has them.
_GLIBC, _BIONIC = ("libm.so.6", "libpthread.so.0", "libc.so.6"), ("libm.so", "libc.so")
# Else lld leaves out a library that no symbol was found in, and the stubs have none.
_KEEP = "-Wl,--no-as-needed"
# Devices with Android 15 map memory in pages of 16 KB.
_PAGES = "-Wl,-z,max-page-size=16384"
NDK = "TVM_NDK_CC"  # the NDK's clang, as TVM calls it
# The C library's functions alone: no calls of helpers that a compiler would bring along.
_FLAGS = (
    "-std=c11", "-O2", "-fPIC", "-fvisibility=hidden", "-pthread", "-fno-stack-protector",
    "-U_FORTIFY_SOURCE",
)  # fmt: skip
_ARM_FLAGS = ("-mno-outline-atomics",)


@dataclass(frozen=True)
class Tools:
    """Commands that compile, link and archive for a target.

    `libraries` stand behind the object files; `stubs` are the names of C libraries that have to be
    made up for the linker first.
    """

    compile: tuple[str, ...]
    link: tuple[str, ...]
    archive: tuple[str, ...]
    libraries: tuple[str, ...] = ()
    stubs: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """What machine code by them depends on."""
        return " ".join((*self.compile, _version(self.compile[0])))


def tools_of(target: Target) -> Tools:
    """The tools for a target: this machine's C compiler (CC, else cc) where it has the target's
    architecture, else the clang of PyPI's ziglang, or on Android the NDK's where TVM_NDK_CC names
    it. Raises UserError where none is there."""
    android = _is_android(target)
    if android and (ndk := os.environ.get(NDK)):
        ar = str(Path(ndk).parent / "llvm-ar")
        return Tools((ndk, *_FLAGS, *_ARM_FLAGS), (ndk, "-shared", _PAGES), (ar,), ("-lm",))
    if target.architecture == host.architecture() and not android:
        compiler = host_compiler()
        if compiler is not None:
            return Tools(
                (*compiler, *_FLAGS), (*compiler, "-shared", "-pthread"), ("ar",), ("-lm",)
            )
    if importlib.util.find_spec("ziglang") is None:
        raise UserError(
            f"linking for {target.config.get('mtriple')} needs a C compiler for it: "
            "pip install ziglang"
            + f", or set {NDK} to the NDK's aarch64-linux-android21-clang" * android
            + ", or install gcc" * (target.architecture == host.architecture() and not android)
        )
    zig = (sys.executable, "-m", "ziglang")
    arm = target.architecture == "aarch64"
    system = f"{target.architecture}-linux-gnu"
    # zig has no headers of bionic; its types that the runtime uses have the size of musl's.
    headers = f"{target.architecture}-linux-musl" if android else system
    linked = f"{target.architecture}-linux-android" if android else system
    return Tools(
        (*zig, "cc", "-target", headers, *_FLAGS, *_ARM_FLAGS * arm),
        (*zig, "cc", "-target", linked, "-nostdlib", "-shared", _PAGES, _KEEP),
        (*zig, "ar"),
        stubs=_BIONIC if android else _GLIBC,
    )


@functools.cache
def host_compiler() -> tuple[str, ...] | None:
    """The command of this machine's C compiler; None where there is none."""
    named = os.environ.get("CC")
    names = [named] if named else ["cc", "gcc", "clang"]
    found = [name for name in names if shutil.which(name.split()[0])]
    return tuple(found[0].split()) if found else None


@functools.cache
def _version(command: str) -> str:
    try:
        done = subprocess.run([command, "--version"], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout


def compile_c(
    tools: Tools, files: Mapping[str, str | bytes], sources: Sequence[str]
) -> dict[str, bytes]:
    """The object files of some sources by name, among `files` that they may include. Raises
    UserError where the compiler fails or cannot be run."""
    objects = {}
    with tempfile.TemporaryDirectory(prefix="hmseg-") as folder:
        for name, content in files.items():
            data = content.encode() if isinstance(content, str) else content
            (Path(folder) / name).write_bytes(data)
        for name in sources:
            run_tool([*tools.compile, "-c", name, "-o", "out.o"], folder, "compiling")
            objects[name] = (Path(folder) / "out.o").read_bytes()
    return objects


def link_shared(tools: Tools, objects: Sequence[bytes], exported: Sequence[str]) -> bytes:
    """A shared library of object files, which exports what the patterns say. Raises UserError where
    the linker fails or cannot be run."""
    with tempfile.TemporaryDirectory(prefix="hmseg-") as folder:
        names = _write_objects(folder, objects)
        patterns = " ".join(f"{pattern};" for pattern in exported)
        script = Path(folder) / "exports.map"
        script.write_text(f"{{ global: {patterns} local: *; }};\n")
        if tools.stubs:
            (Path(folder) / "empty.c").write_text("")
        for stub in tools.stubs:
            soname = f"-Wl,-soname,{stub}"
            run_tool([*tools.link, soname, "-o", stub, "empty.c"], folder, "linking")
        version = f"-Wl,--version-script={script.name}"
        # Without what only debuggers read (-s): a quarter of a network in 8 bits.
        linked = [*names, *tools.libraries, *tools.stubs]
        command = [*tools.link, "-s", version, "-o", "lib.so", *linked]
        run_tool(command, folder, "linking")
        return (Path(folder) / "lib.so").read_bytes()


def archive(tools: Tools, objects: Sequence[bytes]) -> bytes:
    """A static library of object files. Raises UserError as `link_shared`."""
    with tempfile.TemporaryDirectory(prefix="hmseg-") as folder:
        names = _write_objects(folder, objects)
        run_tool([*tools.archive, "rcs", "lib.a", *names], folder, "archiving")
        return (Path(folder) / "lib.a").read_bytes()


def _write_objects(folder: str, objects: Sequence[bytes]) -> list[str]:
    # Numbered: the name of a kernel that TVM fused may be longer than a file's can be.
    names = [f"part{number}.o" for number in range(len(objects))]
    for name, data in zip(names, objects, strict=True):
        (Path(folder) / name).write_bytes(data)
    return names


def _is_android(target: Target) -> bool:
    """Whether it links against Android's C library, bionic."""
    return "android" in target.config.get("mtriple", "")


def run_tool(command: Sequence[str], folder: str, doing: str) -> None:
    """Run a compiler or linker in a folder; raises UserError where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    except OSError as error:
        raise UserError(f"{doing}: cannot run {command[0]}: {error.strerror}") from error
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line] or [done.stderr]
        raise UserError(f"{doing} with {Path(command[0]).name} failed: {lines[-1].strip()[-300:]}")
